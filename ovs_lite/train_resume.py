"""What the training loop leaves on disk and how it goes on from there: model, optimiser, loss scale, settings, log."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ovs_lite.checkpoints import load_checkpoint, save_checkpoint
from ovs_lite.files import write_text
from ovs_lite.optim import BlockOptimizer


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: BlockOptimizer,
    scaler: torch.amp.GradScaler | None,
    settings: dict[str, Any],
    average: AveragedModel | None = None,
) -> None:
    """Save the state after `step` steps. settings: plain values that a resumed run is compared with."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    notes = {"settings": settings, "scaler": scaler.state_dict() if scaler else {}}
    save_checkpoint(folder, step, tensors, notes)


def restore(
    checkpoint: Path,
    model: nn.Module,
    optimizer: BlockOptimizer,
    scaler: torch.amp.GradScaler | None,
    settings: dict[str, Any],
    average: AveragedModel | None = None,
) -> int:
    """Load what `save` left; returns the number of steps done. Warns by name about settings that changed.

    Raises ValueError when the checkpoint is damaged, belongs to another model, or to a task with other settings: what
    stands under "task" makes another training, not one with other bits.
    """
    tensors, step, notes = load_checkpoint(checkpoint)
    then = dict(notes.get("settings", {}))
    _check_task(checkpoint, then.pop("task", {}), json.loads(json.dumps(settings.get("task", {}))))
    changed = [f"{name} {then[name]} -> {settings[name]}" for name in then if then[name] != settings.get(name)]
    if changed:
        names = ", ".join(changed)
        warnings.warn(f"{checkpoint}: resumed with other settings, so not bit-identical: {names}", stacklevel=2)
    try:
        model.load_state_dict(_below("model.", tensors))
        optimizer.load_tensors(_below("optimizer.", tensors))
        if average is not None:
            average.load_state_dict(_below("average.", tensors))
    except (RuntimeError, ValueError) as error:
        message = f"{checkpoint}: belongs to another model; choose another run folder or start over: {error}"
        raise ValueError(message) from error
    if scaler and notes.get("scaler"):
        scaler.load_state_dict(notes["scaler"])
    return step


def _check_task(checkpoint: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{name} {then[name]} -> {now[name]}" for name in then if name in now and then[name] != now[name]]
    if changed:
        names = ", ".join(changed)
        raise ValueError(
            f"{checkpoint}: of a training with other settings: {names}; choose another run folder or --fresh"
        )


def cut_log(path: Path, start: int) -> None:
    """Keep the log's rows before step `start`: a killed run logged steps that are done again, the last line torn."""
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
