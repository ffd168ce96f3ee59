"""What the training loop leaves on disk and how it resumes from there: model, optimiser, loss scale, settings, log."""

import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ovs_lite.checkpoints import load_checkpoint, save_checkpoint
from ovs_lite.config import flatten
from ovs_lite.files import write_text
from ovs_lite.train.optim import load_state_tensors, state_tensors

FREE = ("checkpoint_every", "log_every", "workers")  # settings that change no number


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    settings: dict[str, Any],
    average: AveragedModel | None = None,
) -> None:
    """Save the state after `step` steps. settings: plain values that a resumed run is compared with."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in state_tensors(optimizer).items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    notes = {"settings": settings, "scaler": scaler.state_dict() if scaler else {}}
    save_checkpoint(folder, step, tensors, notes)


def restore(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    settings: dict[str, Any],
    average: AveragedModel | None = None,
) -> int:
    """Load what `save` left; returns the number of steps done. Warns by name about settings that changed.

    Raises ValueError when the checkpoint is damaged, belongs to another model, or to a task with other settings: these
    make another training run, not one with other bits.
    """
    tensors, step, notes = load_checkpoint(checkpoint)
    _compare(checkpoint, notes.get("settings", {}), json.loads(json.dumps(settings)))
    try:
        model.load_state_dict(_below("model.", tensors))
        load_state_tensors(optimizer, _below("optimizer.", tensors))
        if average is not None:
            average.load_state_dict(_below("average.", tensors))
    except (RuntimeError, ValueError) as error:
        message = f"{checkpoint}: belongs to another model; choose another run folder or start over: {error}"
        raise ValueError(message) from error
    if scaler and notes.get("scaler"):
        scaler.load_state_dict(notes["scaler"])
    return step


def _compare(checkpoint: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError for another task's settings; warns where the loop or the machine changed."""
    task = [dict(side.get("settings", {})) for side in (then, now)]
    loops = [part.pop("loop", {}) for part in task]
    changed = _changes(*task)
    if changed:
        names = ", ".join(changed)
        raise ValueError(
            f"{checkpoint}: of a training run with other settings: {names}; choose another run folder or --fresh"
        )
    other = _changes(*loops, skip=FREE) + _changes(then.get("machine", {}), now.get("machine", {}))
    if other:
        names = ", ".join(other)
        warnings.warn(f"{checkpoint}: resumed with other settings, so not bit-identical: {names}", stacklevel=4)


def _changes(then: dict[str, Any], now: dict[str, Any], skip: Collection[str] = FREE) -> list[str]:
    """What differs, in words; a setting that only one side has counts, too."""
    before, after = dict(flatten(then)), dict(flatten(now))
    names = [name for name in before | after if name.split(".")[-1] not in skip]
    return [f"{n} {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)]


def truncate_log(path: Path, start: int) -> None:
    """Keep the log's rows before step `start`: a killed run logged steps that are done again, its last line in part."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] < start:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    write_text(path, "".join(kept))


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
