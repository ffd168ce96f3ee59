"""Run in each of two processes by test_distributed: saves what every call between processes gives."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from kit.tasks import TinyContrast
from ovs_lite import distributed


def gradients(task: TinyContrast) -> dict[str, torch.Tensor | None]:
    loss = task.losses(task.batch(0))["contrastive"]
    loss.backward()
    distributed.average_gradients(task.model.parameters())
    return {"loss": loss.detach()} | {name: p.grad for name, p in task.model.named_parameters()}


def main(out: Path) -> None:
    dist.init_process_group("gloo")
    me, cpu = distributed.rank(), torch.device("cpu")
    one_sided = torch.nn.Parameter(torch.zeros(2))
    one_sided.grad = torch.tensor([4.0, 2.0]) if me == 1 else None
    distributed.average_gradients([one_sided])
    copied = torch.full((3,), float(me))
    distributed.copy_from_main([copied])
    row = torch.full((1, 2), float(me + 1), requires_grad=True)
    gathered = distributed.gather_with_gradient(row)
    (gathered * torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (me + 1)).sum().backward()
    found = {
        "world_size": distributed.world_size(),
        "is_main": distributed.is_main(),
        "sum": distributed.reduce_sum(torch.tensor([1, 2 + me])).tolist(),
        "shard": distributed.shard(list(range(7))),
        "any": [distributed.any_process(me == 1, cpu), distributed.any_process(False, cpu)],
        "one_sided": one_sided.grad.tolist(),
        "copied": copied.tolist(),
        "gathered": gathered.tolist(),
        "row_gradient": row.grad.tolist(),
        "contrast": gradients(TinyContrast()),
    }
    torch.save(found, out / f"rank-{me}.pt")
    distributed.leave()
    assert not dist.is_initialized()
    distributed.leave()  # without a group: nothing


if __name__ == "__main__":
    main(Path(sys.argv[1]))
