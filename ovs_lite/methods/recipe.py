"""What can be trained: a task for the loop, and the recipe that the command, the notebooks and the tests all read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Task:
    """What the loop needs. Its batches are a function of their index alone, and each process draws only its share.

    A subclass sets `weights` (loss term -> factor, applied only in the loop) and defines `losses`.
    whole: the model and all that `losses` uses next to it.
    model: what is trained and saved in checkpoints.
    batches: index -> this process's share, with `total` and `image_ids` as PairBatch and MaskBatch have them.
    found: what decides the numbers beyond the configuration, e.g. {"records": 1500}; compared when a run resumes.
    """

    weights: dict[str, float]

    def __init__(
        self, whole: nn.Module, model: nn.Module, batches: Callable[[int], Any], found: dict[str, Any] | None = None
    ):
        self.whole, self.model, self.batches, self.found = whole, model, batches, found or {}

    def to(self, device: torch.device) -> None:
        """Move all that `losses` uses, in place."""
        self.whole.to(device)

    def batch(self, index: int) -> Any:
        """This process's share of the batch of an index (the step, with accumulation 1), the same at every call."""
        return self.batches(index)

    def count(self, batch: Any) -> int:
        """How many images the batch of all processes holds, for the log's speed."""
        return batch.total

    def image_ids(self, batch: Any) -> list[str]:
        """Names of this process's images, for the report of a loss that is not finite."""
        return batch.image_ids

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Named, unweighted scalar terms, whose mean over processes is the loss of the whole batch."""
        raise TypeError(f"{type(self).__name__} must define losses(batch)")

    def about(self) -> dict[str, str]:
        """What only this task has to say of a training, beyond steps, seed and data, for the file of weights."""
        return {}

    def notes(self) -> list[str]:
        """What only this task has to say when it is done, for the command to print."""
        return []


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
    example: arguments after `ovs-lite train`, for --help.
    word: field that may be given as a second word without a flag; "" for none.
    model: class of what is trained, where it is no `Method`.
    ablations: rows of the paper's tables that the kit has trained and brings: {title: changes of the lite preset}, see
        `ovs_lite.methods.ablations`.
    start: configuration -> what such a training starts from, without its data.
    sources: where the settings of the paper preset are from: {paper's section, released file, or "ours" and why: names
        of fields, with spaces between}; those of the loop without that word.
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
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    start: Callable[[Any], Any] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
