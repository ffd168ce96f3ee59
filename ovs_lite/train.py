"""The one training loop, on accelerate: mixed precision, clipping, schedule, checkpoints, exact resume, JSONL log.

A task says what is trained: `parameters()`, `batch(step)` (a function of the step alone, so that resuming needs no
state of a loader), `losses(batch)` (named, unweighted terms) and `weights` (name -> factor, applied only here).
Command line: python -m ovs_lite.train --help
"""

import json
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from ovs_lite.distributed import is_main
from ovs_lite.files import write_json
from ovs_lite.optim import BlockOptimizer, cosine_factor


@dataclass(frozen=True)
class LoopConfig:
    """steps: in all. lr: AdamW's peak. muon_lr: Muon's peak, 0 = AdamW on everything. warmup: steps. clip: gradient
    norm. precision: no, bf16 or fp16. checkpoint_every, log_every: steps. seed: of dropout and the like."""

    steps: int
    lr: float = 2e-3
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    precision: str = "no"
    checkpoint_every: int = 200
    log_every: int = 20
    seed: int = 0


class Task(Protocol):
    """What the loop needs from a method; see the module docstring."""

    model: nn.Module
    weights: dict[str, float]

    def batch(self, step: int) -> Any:
        """The batch of a step, the same at every call."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Named, unweighted scalar terms."""


class NonFiniteLoss(RuntimeError):
    """A loss term became NaN or infinite; the message holds every term and the step."""


def total_loss(terms: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """Weighted sum of the terms. Raises ValueError when a term has no weight: nothing is dropped in silence."""
    unknown = sorted(set(terms) - set(weights))
    if unknown:
        raise ValueError(f"got loss terms without a weight: {', '.join(unknown)}; weights exist for {sorted(weights)}")
    return sum(weights[name] * value for name, value in terms.items())


def train(
    task: Task,
    config: LoopConfig,
    out: str | Path,
    resume: bool = True,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `task` until `config.steps`; leaves out/log.jsonl, out/loop.json and the last two checkpoints.

    resume: go on from the newest checkpoint in `out` (bit-identical on a CPU with the same number of threads).
    on_step: called after every step with (step, logged terms). Returns the log's rows of this call.
    Raises NonFiniteLoss; SIGTERM and Ctrl-C save a checkpoint before they end the run.
    """
    out = Path(out)
    accelerator = Accelerator(mixed_precision=config.precision, cpu=not torch.cuda.is_available())
    torch.manual_seed(config.seed)
    model = accelerator.prepare(task.model)
    optimizer = BlockOptimizer(task.model.named_parameters(), config.lr, config.muon_lr, config.weight_decay)
    start = _restore(task.model, optimizer, out) if resume else 0
    if is_main():
        write_json(out / "loop.json", asdict(config))
    rows: list[dict[str, float]] = []
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not (progress and is_main()))
    begun = time.perf_counter()
    model.train()
    step = start
    with _interruptible() as stopped:
        for step in bar:
            optimizer.set_factor(cosine_factor(step, config.steps, config.warmup))
            row = _step(accelerator, task, optimizer, step, config)
            row["steps_per_s"] = round((step + 1 - start) / (time.perf_counter() - begun), 3)
            bar.set_postfix({"loss": f"{row['loss']:.3f}"})
            if step % config.log_every == 0 or step == config.steps - 1:
                rows.append(row)
                _log(out, row)
            if on_step is not None:
                on_step(step, row)
            last = step == config.steps - 1
            if is_main() and (last or stopped or (step + 1) % config.checkpoint_every == 0):
                _save(task.model, optimizer, out, step + 1)
            if stopped:
                raise SystemExit(f"stopped by signal after step {step}; run the same command again to go on")
    model.eval()
    return rows


def _step(accelerator, task: Task, optimizer: BlockOptimizer, step: int, config: LoopConfig) -> dict[str, float]:
    with accelerator.autocast():
        terms = task.losses(task.batch(step))
        loss = total_loss(terms, task.weights)
    values = {name: float(value.detach()) for name, value in terms.items()} | {"loss": float(loss.detach())}
    if not torch.isfinite(loss):
        raise NonFiniteLoss(f"step {step}: {values}; lower the learning rate or look at this step's batch")
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(task.model.parameters(), config.clip)
    optimizer.step()
    return {"step": step, **{name: round(value, 6) for name, value in values.items()}}


def _log(out: Path, row: dict[str, float]) -> None:
    if is_main():
        with open(out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _trained(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    return ((name, value) for name, value in model.state_dict().items())


def _save(model: nn.Module, optimizer: BlockOptimizer, out: Path, step: int) -> None:
    tensors = {f"model.{name}": value for name, value in _trained(model)}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    tensors["rng"] = torch.get_rng_state()
    save_checkpoint(out / "checkpoints", step, tensors)


def _restore(model: nn.Module, optimizer: BlockOptimizer, out: Path) -> int:
    found = latest_checkpoint(out / "checkpoints")
    if found is None:
        return 0
    tensors, step = load_checkpoint(found)
    torch.set_rng_state(tensors.pop("rng"))
    split = {"model": {}, "optimizer": {}}
    for name, value in tensors.items():
        owner, key = name.split(".", 1)
        split[owner][key] = value
    model.load_state_dict(split["model"])
    optimizer.load_tensors(split["optimizer"])
    return step


class _interruptible:
    """While active, SIGTERM and SIGINT set a flag that the loop reads after the step, instead of killing it."""

    def __init__(self):
        self.raised = False

    def __bool__(self) -> bool:
        return self.raised

    def _remember(self, *_):
        self.raised = True

    def __enter__(self):
        self.previous = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: leave signals to whoever owns them
                break
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    from ovs_lite.train_clip import main

    main()
