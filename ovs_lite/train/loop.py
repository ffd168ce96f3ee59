"""The one training loop, on accelerate: mixed precision, clipping, schedule, checkpoints, exact resume, JSONL log.

A task says what is trained; see `Task`. Its batches are a function of their index alone and the loop seeds dropout and
the like again for every batch, so a checkpoint needs no state of a loader or of a random generator to resume exactly.
With several processes the task's batches are this process's share; gradients and logged terms are averaged.
"""

import hashlib
import json
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ovs_lite.checkpoints import latest_checkpoint, remove_checkpoints
from ovs_lite.config import LoopConfig
from ovs_lite.distributed import (
    Interrupts,
    any_process,
    average_gradients,
    broadcast,
    is_main,
    rank,
    reduce_sum,
    total_count,
    world_size,
)
from ovs_lite.files import printable, write_json
from ovs_lite.methods import Task
from ovs_lite.train.blocks import economical
from ovs_lite.train.meter import Meter
from ovs_lite.train.optim import build_optimizer, learning_rate_factor, scale_rates, update
from ovs_lite.train.precision import accelerator as prepared
from ovs_lite.train.resume import RunState, truncate_log

OnStep = Callable[[int, dict[str, float]], None]
CONFIG = "config.json"


class NonFiniteLoss(RuntimeError):
    """A loss term or the gradient became NaN or infinite; the message and non_finite.json hold terms and images."""


def total_loss(terms: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """Weighted sum of the terms. Raises ValueError when a term has no weight: nothing is dropped in silence."""
    unknown = sorted(set(terms) - set(weights))
    if unknown or not terms:
        raise ValueError(f"got loss terms without a weight: {', '.join(unknown)}; weights exist for {sorted(weights)}")
    return sum(weights[name] * value for name, value in terms.items())


def train(
    task: Task,
    config: LoopConfig,
    out: str | Path,
    resume: bool = True,
    on_step: OnStep | None = None,
    progress: bool = True,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Train `task` until `config.steps`; leaves out/log.jsonl, out/config.json and the last two checkpoints.

    resume: from the newest checkpoint in `out` (bit-identical on a CPU with the same number of threads); False starts
        over and removes the checkpoints and the log that are there.
    on_step: called after every step with (step, logged terms).
    settings: the resolved configuration and what else decides the numbers, plain values, saved as config.json. A run is
        not resumed with others; a changed `loop` warns by name, as more steps are a wish.
    Returns the log's rows of this call: step, every term, their weighted sum `loss`, lr, grad_norm (before clipping)
    and images_per_s of all processes. The model is left in evaluation mode.
    Raises ValueError for checkpoints of another model, other `settings` or more steps, and NonFiniteLoss, after writing
    the step, every term and the batch's image_ids to out/non_finite.json. SIGTERM and Ctrl-C in any process let all of
    them end the step and save a checkpoint, then SystemExit(0) or KeyboardInterrupt ends the run; see `Interrupts`.
    The last row of out/log.jsonl, which is printed, too, says what the run took; see `Meter.row`.
    """
    out = Path(out)
    accelerator = prepared(config.precision)
    task.to(accelerator.device)
    optimizer = build_optimizer(task.model.named_parameters(), config)
    average = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    known = {**(settings or {}), "loop": asdict(config)}
    machine = {"device": accelerator.device.type, "threads": torch.get_num_threads(), "processes": world_size()}
    machine |= {"precision": accelerator.mixed_precision, "torch": str(torch.__version__)}
    compared = {"settings": known, "machine": machine}
    state = RunState(task.model, optimizer, accelerator.scaler, average, compared)
    start = _prepare(state, out, resume, config.steps, accelerator.device)
    rows: list[dict[str, float]] = []
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not (progress and is_main()))
    task.model.train()
    meter, done = Meter(accelerator.device, state.spent), start
    stopping = Interrupts(signal.SIGTERM, signal.SIGINT)
    with stopping as interrupts, economical(task.whole, config), _denormals_as_zero(), bar:
        stopped = start < config.steps and any_process(interrupts.number != 0, accelerator.device)
        for step in () if stopped else bar:
            factor = learning_rate_factor(config.schedule, step, config.steps, config.warmup)
            scale_rates(optimizer, factor)
            row = _step(accelerator, task, optimizer, step, config, out, meter)
            if average is not None:
                average.update_parameters(task.model)
            done = step + 1
            row |= {"lr": config.lr * factor, "images_per_s": round(meter.speed(), 1)}
            bar.set_postfix({"loss": f"{row['loss']:.3f}"})
            last = done == config.steps
            if last or step % config.log_every == 0:
                rows.append(row)
                _log(out, row)
            if on_step is not None:
                on_step(step, row)
            stopped = any_process(interrupts.number != 0, accelerator.device)
            if is_main() and (last or stopped or done % config.checkpoint_every == 0):
                state.save(out / "checkpoints", done, meter.spent())
            if stopped:
                break
        if done > start:
            _conclude(meter, out, done)
        if done < config.steps:
            interrupts.end(f"stopped by a signal after {done} steps; run the same command again to resume")
    if average is not None:
        task.model.load_state_dict(average.module.state_dict())
    task.model.eval()
    return rows


@contextmanager
def _denormals_as_zero():
    """Below 1e-38, where sigmoids of sure masks end, a CPU multiplies many times slower than anywhere else."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _log(out: Path, row: dict[str, Any]) -> None:
    if is_main():
        with open(out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _conclude(meter: Meter, out: Path, done: int) -> None:
    """Log and print what the run took until now; all processes call it together."""
    row = meter.row()
    _log(out, {"step": done, **row})
    for line in meter.lines(row) if is_main() else ():
        print(printable(f"{out.name}: {line}"))


def _step(
    accelerator: Accelerator,
    task: Task,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: LoopConfig,
    out: Path,
    meter: Meter,
) -> dict[str, float]:
    """One update from `accumulation` batches. Returns the log's row."""
    sums: dict[str, float] = {}
    ids: list[str] = []
    for index in range(step * config.accumulation, (step + 1) * config.accumulation):
        batch = meter.batch(task, index)
        ids += task.image_ids(batch)
        set_seed(_batch_seed(config.seed, index))
        with accelerator.autocast():
            terms = task.losses(batch)
            loss = total_loss(terms, task.weights)
        values = _means({**terms, "loss": loss})
        _check_finite(values, step, ids, out)
        sums = {name: sums.get(name, 0.0) + value / config.accumulation for name, value in values.items()}
        accelerator.backward(loss / config.accumulation)
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    average_gradients(trained)
    accelerator.unscale_gradients(optimizer)
    norm = float(accelerator.clip_grad_norm_(trained, config.grad_norm))
    if accelerator.scaler is None:  # with fp16 an overflow is expected, and the scaler skips the step
        _check_finite({**sums, "grad_norm": norm}, step, ids, out)
    update(optimizer, norm, accelerator.scaler)
    row = {**sums, "grad_norm": norm}
    return {"step": step, **{name: round(value, 6) for name, value in row.items()}}


def _batch_seed(seed: int, index: int) -> int:
    """32 bits from (seed, index, process), so that no two batches and no two processes share their dropout."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index} {rank()}".encode()).digest()[:4], "big")


def _means(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Each term averaged over processes; a NaN in one process is a NaN in all, so all stop together."""
    stacked = torch.stack([value.detach().float() for value in terms.values()])
    return dict(zip(terms, (reduce_sum(stacked) / world_size()).tolist(), strict=True))


def _check_finite(values: dict[str, float], step: int, ids: list[str], out: Path) -> None:
    """Raises NonFiniteLoss, and first writes what is needed to look at the batch again."""
    if all(abs(value) < float("inf") for value in values.values()):
        return
    report = out / "non_finite.json"
    if is_main():
        terms = {name: str(value) for name, value in values.items()}
        write_json(report, {"step": step, "terms": terms, "image_ids": ids})
    raise NonFiniteLoss(f"step {step}: {values}; lower the learning rate or look at the batch, named in {report}")


def _prepare(state: RunState, out: Path, resume: bool, steps: int, device: torch.device) -> int:
    """Restore or start over; returns the first step."""
    if is_main() and not resume:
        remove_checkpoints(out / "checkpoints")
    found = latest_checkpoint(out / "checkpoints") if resume else None
    start = 0 if found is None else state.restore(found, steps)
    if total_count(start, device) != start * world_size():
        raise ValueError(f"{out}: the processes found different checkpoints; use a folder that all machines share")
    broadcast(state.model.state_dict().values())
    if state.average is not None and found is None:
        state.average.module.load_state_dict(state.model.state_dict())
    if is_main():
        write_json(out / CONFIG, state.settings["settings"])
        # a finished run's last row says what it took, and stays
        truncate_log(out / "log.jsonl", start + (start == steps))
    return start
