"""Watching a training run from a notebook: pass a `LiveCurve` to `train` as on_step.

curve = LiveCurve(steps, ("loss",))
train(task, config, out, on_step=curve, progress=False)
notebook.show(curve.figure(), alt="...")
"""

import os
import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from IPython.display import display
from matplotlib.figure import Figure

from ovs_lite.viz.figures import curves

if TYPE_CHECKING:  # CLIP and its libraries take seconds to import
    from ovs_lite.methods import Method, Task

REDRAW_SECONDS = 1.0
LINES = 4


class LiveCurve:
    """Keeps every step's terms; redraws them about once a second, or, headless, prints a line per quarter of the run.

    steps: of the whole run. terms: names to draw, e.g. ("loss",). history: {term: list of values}; steps_seen: theirs.
    """

    def __init__(self, steps: int, terms: Sequence[str] = ("loss",)):
        self.steps, self.terms = steps, tuple(terms)
        self.steps_seen: list[int] = []
        self.history: dict[str, list[float]] = {term: [] for term in self.terms}
        self._handle, self._drawn = None, 0.0

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """What `train` calls after every step. Raises KeyError for a term that the task does not have."""
        self.steps_seen.append(step)
        for term in self.terms:
            self.history[term].append(row[term])
        if headless():
            if another_quarter(step + 1, self.steps):
                values = ", ".join(f"{term} {row[term]:.3f}" for term in self.terms)
                print(f"step {step + 1} of {self.steps}: {values}", flush=True)
        elif time.monotonic() - self._drawn > REDRAW_SECONDS:
            if self._handle is None:
                self._handle = display(self.figure(), display_id=True)
            else:
                self._handle.update(self.figure())
            self._drawn = time.monotonic()

    def figure(self) -> Figure:
        """The curves so far."""
        return curves({term: (self.steps_seen, values) for term, values in self.history.items()}, "step", "")


class MaskFilm:
    """Keeps the mask of one text in one image at chosen steps of a training run; pass it as on_step.

    image: (1, 3, H, W) normalised.
    text: (1, D).
    steps: after which a frame is taken.
    options: of the method's `predict`.
    frames: {step: (H, W)}.
    """

    def __init__(self, image: torch.Tensor, text: torch.Tensor, steps: Collection[int], **options):
        self.image, self.text, self.steps, self.options = image, text, set(steps), options
        self.method: Method | None = None
        self.frames: dict[int, torch.Tensor] = {}

    def watch(self, task: "Task") -> None:
        """What `run_recipe` calls before the first step: the film is of this task's method."""
        self.method = task.method

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """What `train` calls after every step."""
        if step in self.steps:
            self.frames[step] = self.method.predict(self.image, self.text, **self.options)[0, 0].cpu()


def another_quarter(done: int, total: int) -> bool:
    """Whether item number `done` of `total` completes one more quarter: when a headless run prints a line."""
    return done * LINES // total > (done - 1) * LINES // total


def headless() -> bool:
    """`ovs-lite reproduce` says so; a script whose output is a file or pipe is headless too."""
    return os.environ.get("OVS_HEADLESS") == "1" or not ("ipykernel" in sys.modules or sys.stderr.isatty())
