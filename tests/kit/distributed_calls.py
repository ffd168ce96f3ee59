"""What every call between processes gives in each of two: run by test_distributed through `kit.processes.launch`."""

import os
import signal
from pathlib import Path

import numpy as np
import torch

from kit.processes import save
from kit.records import scene, toy
from kit.tasks import CONFIG, TinyContrast
from ovs_lite import distributed
from ovs_lite.data.loaders.mask_batches import MaskBatches
from ovs_lite.evaluation.blocks import CountFolder, count_in_blocks
from ovs_lite.train import LoopConfig, train


def gradients(task: TinyContrast) -> dict[str, torch.Tensor | None]:
    loss = task.losses(task.batch(0))["contrastive"]
    loss.backward()
    distributed.average_gradients(task.model.parameters())
    return {"loss": loss.detach()} | {name: p.grad for name, p in task.model.named_parameters()}


def mask_batches() -> list[dict]:
    """Three batches of six of seven records: this process's images, masks, labels and names, and the total."""
    batches = MaskBatches([toy(f"p{number}", scene(20, 20 + number)) for number in range(7)], 6, 16, seed=2)
    return [vars(batches(index)) for index in (0, 1, 4)]


def every_call(out: str) -> None:
    me, cpu = distributed.rank(), torch.device("cpu")
    one_sided = torch.nn.Parameter(torch.zeros(2))
    one_sided.grad = torch.tensor([4.0, 2.0]) if me == 1 else None
    distributed.average_gradients([one_sided])
    copied = torch.full((3,), float(me))
    distributed.broadcast([copied])
    row = torch.full((1, 2), float(me + 1), requires_grad=True)
    gathered = distributed.gather_with_gradient(row)
    (gathered * torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (me + 1)).sum().backward()
    found = {
        "world_size": distributed.world_size(),
        "is_main": distributed.is_main(),
        "sum": distributed.reduce_sum(torch.tensor([1, 2 + me])).tolist(),
        "total": distributed.total_count(3 + me, cpu),
        "shard": distributed.shard(list(range(7))),
        "rows": distributed.gather_rows(torch.full((2 * me, 2), me + 5), cpu).tolist(),
        "no_rows": list(distributed.gather_rows(torch.zeros(0, 3, dtype=torch.int32), cpu).shape),
        "any": [distributed.any_process(me == 1, cpu), distributed.any_process(False, cpu)],
        "one_sided": one_sided.grad.tolist(),
        "copied": copied.tolist(),
        "gathered": gathered.tolist(),
        "row_gradient": row.grad.tolist(),
        "mask_batches": mask_batches(),
        "contrast": gradients(TinyContrast()),
    }
    save(found, out)


def contrast(out: str) -> None:
    """Train the task that contrasts over both processes."""
    train(TinyContrast(), LoopConfig(**CONFIG), out, progress=False)


def one_gets_a_signal(out: str) -> None:
    """Process 1 alone gets SIGTERM, after step 5."""

    def on_step(step, row):
        if step == 5 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    train(TinyContrast(), LoopConfig(**CONFIG), out, on_step=on_step, progress=False)


def one_gets_a_signal_while_it_counts(out: str) -> None:
    """Process 1 alone gets SIGTERM, in the second of its blocks."""

    def count(records) -> dict[str, np.ndarray]:
        numbers = [record["number"] for record in records]
        if 6 in numbers:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"squares": np.array(numbers, np.int64) ** 2}

    kept = CountFolder(Path(out), "key", tuple(map(str, range(40))))
    count_in_blocks(count, [{"number": number} for number in range(40)], kept, block=2)


def groups_one_after_the_other(out: str) -> None:
    """As commands do that are called in one process, one after the other: each joins, works and leaves."""
    totals = []
    for _ in range(3):
        distributed.destroy_process_group()
        distributed.start_process_group()
        totals.append(distributed.reduce_sum(torch.tensor(float(distributed.rank() + 1))))
    save(torch.stack(totals), out)


def groups_then_a_signal(out: str) -> None:
    """Both in one launch; the training is in the last of the groups."""
    groups_one_after_the_other(out)
    one_gets_a_signal(out)
