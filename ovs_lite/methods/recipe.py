"""What can be trained: a task for the loop, and the recipe that the command, the notebooks and the tests all read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Task(Protocol):
    """What the loop needs. Its batches are a function of their index alone, and each process draws only its share.

    model: what is trained and saved in checkpoints.
    weights: loss term -> factor, applied only in the loop.
    found: what decides the numbers beyond the configuration, e.g. {"records": 1500}; compared when a run resumes.
    """

    model: nn.Module
    weights: dict[str, float]
    found: dict[str, Any]

    def to(self, device: torch.device) -> None:
        """Move the model, and all that `losses` uses beside it, in place."""

    def batch(self, index: int) -> Any:
        """This process's share of the batch of an index (the step, with accumulation 1), the same at every call."""

    def count(self, batch: Any) -> int:
        """How many images the batch of all processes holds, for the log's speed."""

    def image_ids(self, batch: Any) -> list[str]:
        """Names of this process's images, for the report of a loss that is not finite."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Named, unweighted scalar terms, whose mean over processes is the loss of the whole batch."""


@dataclass(frozen=True)
class Recipe:
    """One thing that can be trained.

    name: the first word after `ovs-lite train`.
    presets: a configuration for each profile, smoke, lite and paper; a frozen dataclass with a `loop` of LoopConfig,
        whose other fields become flags, with their trailing comments as help.
    build: configuration -> task; draws initial weights from torch's generator, which is seeded before.
    save: (task, path, configuration) -> None, writes what `load` reads. Called by the main process alone.
    load: (path, configuration) -> the trained method or model, in evaluation mode.
    weights: configuration -> name of that file in the run's folder.
    example: words after `ovs-lite train`, for --help.
    word: field that may be given as a second word without a flag; "" for none.
    model: class of what is trained, where it is no `Method`.
    """

    name: str
    presets: Mapping[str, Any]
    build: Callable[[Any], Task]
    save: Callable[[Task, Path, Any], None]
    load: Callable[[Path, Any], Any]
    weights: Callable[[Any], str]
    example: str
    word: str = ""
    model: type | None = None
