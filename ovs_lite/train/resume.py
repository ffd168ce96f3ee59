"""What the training loop leaves on disk and how it resumes from there: model, optimiser, loss scale, settings, log."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ovs_lite.checkpoints import load_checkpoint, save_checkpoint
from ovs_lite.config import flatten
from ovs_lite.files import write_text
from ovs_lite.train.optim import load_state_tensors, state_tensors

FREE = ("checkpoint_every", "log_every", "workers", "recompute")  # settings that change no number


@dataclass
class RunState:
    """All that a run resumes with. A checkpoint holds it after some number of steps.

    scaler: of fp16.
    average: the running average of the weights, where there is one.
    settings: plain values that a resumed run is compared with, those of task and loop under "settings", the machine's
        under "machine".
    spent: what the steps so far took, see `Meter.spent`; a checkpoint brings its own.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: AveragedModel | None
    settings: dict[str, Any]
    spent: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path, step: int, spent: dict[str, float]) -> None:
        """Write a checkpoint after `step` steps, which took `spent`."""
        parts = {"model": self.model.state_dict(), "optimizer": state_tensors(self.optimizer)}
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        scaler = self.scaler.state_dict() if self.scaler else {}
        save_checkpoint(folder, step, tensors, {"settings": self.settings, "scaler": scaler, "spent": spent})

    def restore(self, checkpoint: Path, steps: int) -> int:
        """Load what `save` left; returns the number of steps done. Warns by name about settings that changed.

        steps: how many the run shall have. Raises ValueError when the checkpoint has more, is damaged, belongs to
        another model, or to a task with other settings: these make another training run, not one with other bits.
        """
        tensors, step, notes = load_checkpoint(checkpoint)
        if step > steps:
            remedy = "ask for as many or more, choose another run folder or --fresh"
            raise ValueError(f"{checkpoint}: has {step} steps done, got steps={steps}; {remedy}")
        _compare(checkpoint, notes.get("settings", {}), json.loads(json.dumps(self.settings)))
        try:
            self.model.load_state_dict(_below("model.", tensors))
            load_state_tensors(self.optimizer, _below("optimizer.", tensors))
            if self.average is not None:
                self.average.load_state_dict(_below("average.", tensors))
        except (RuntimeError, ValueError) as error:
            message = f"{checkpoint}: belongs to another model; choose another run folder or start over: {error}"
            raise ValueError(message) from error
        if self.scaler and notes.get("scaler"):
            self.scaler.load_state_dict(notes["scaler"])
        self.spent = notes.get("spent", {})
        return step


def _compare(checkpoint: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError for another task's settings; warns where the loop or the machine changed.

    A setting that only one side has counts, too.
    """
    before, after = dict(flatten(then)), dict(flatten(now))
    task: list[str] = []
    other: list[str] = []
    for name in before | after:
        if before.get(name) != after.get(name) and name.split(".")[-1] not in FREE:
            minor = name.startswith(("settings.loop.", "machine."))
            short = name.removeprefix("settings.").removeprefix("loop.").removeprefix("machine.")
            (other if minor else task).append(f"{short} {before.get(name)} -> {after.get(name)}")
    if task:
        given = f"of a training run with other settings: {', '.join(task)}"
        raise ValueError(f"{checkpoint}: {given}; choose another run folder or --fresh")
    if other:
        given = f"resumed with other settings, so not bit-identical: {', '.join(other)}"
        warnings.warn(f"{checkpoint}: {given}", stacklevel=5)


def truncate_log(path: Path, start: int) -> None:
    """Keep the log's rows before step `start`: a killed run logged steps that are done again, its last line in part."""
    kept = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] < start:
                kept.append(line.decode() + "\n")
        except (ValueError, KeyError, TypeError):
            break
    write_text(path, "".join(kept))


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
