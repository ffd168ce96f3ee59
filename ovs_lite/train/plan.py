"""What a training run will take on given GPUs: batch per GPU, memory, hours, disk; each number with where it is from.

measured: counted on the network itself, see costs.yaml. computed: follows from measured numbers and the settings.
estimated: rests on a rule of thumb that is named next to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ovs_lite.checkpoints.steps import KEEP
from ovs_lite.config import LoopConfig, lookup

COSTS = Path(__file__).with_name("costs.yaml")
PROFILE = "paper"  # whose costs are known
FLOAT = 4  # bytes
ADAMW_STATE = 2  # moments per trained weight; Muon has one
SPARE = 0.2  # of a GPU's memory, for operations' temporary tensors, the context and fragmentation; a rule of thumb


@dataclass(frozen=True)
class Plan:
    """A run on `gpus` GPUs. Bytes are of one GPU.

    batch: samples of one GPU at a time; 0: not even one fits. accumulation: such batches per step.
    weights, gradients, optimizer: bytes that do not depend on the batch. activations: that the backward pass needs.
    checkpoints: bytes on disk while a third one is written, the weights' file next to them. hours: of all steps.
    speed_from: what the hours rest on. measured: whether that is this recipe's own speed on this device.
    """

    batch: int
    accumulation: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    checkpoints: int
    hours: float
    speed_from: str
    measured: bool

    @property
    def memory(self) -> int:
        """Bytes at the fullest moment, without what `SPARE` is for."""
        return self.weights + self.gradients + self.optimizer + self.activations


@cache
def costs() -> dict[str, Any]:
    """The content of costs.yaml."""
    return yaml.safe_load(COSTS.read_text(encoding="utf-8"))


def cost_of(recipe: str) -> dict[str, Any]:
    """A recipe's entry. Raises ValueError that lists the recipes that were measured."""
    return lookup(costs()["recipes"], recipe, "recipe with measured costs")


def make_plan(recipe: str, loop: LoopConfig, batch: int, gpus: int, memory: float, device: str) -> Plan:
    """The largest batch per GPU that fits and divides the share of a GPU, and what follows.

    batch: samples per step, of all GPUs. memory: of one GPU, GB of 1e9 bytes. device: a name in costs.yaml.
    Raises ValueError for what was not measured, an unknown device, or GPUs that cannot share the batch.
    """
    cost, whole = cost_of(recipe), loop.accumulation * batch
    lookup(costs()["devices"], device, "GPU")
    if gpus < 1 or memory <= 0 or whole % gpus:
        given = f"got {gpus} GPUs of {memory:g} GB for {whole} samples per step"
        raise ValueError(f"{given}, expected GPUs that share the samples equally, and more than 0 GB")
    trained, kind = cost["trained_parameters"], "_recompute" if loop.recompute else ""
    copies = 2 * FLOAT * trained if gpus > 1 else 0  # of the gradients while they are averaged; activations are gone
    fixed = {
        "weights": FLOAT * (trained * (2 if loop.ema else 1) + cost["frozen_parameters"]),
        "gradients": FLOAT * trained,
        "optimizer": FLOAT * trained * ADAMW_STATE,
    }
    room = (1 - SPARE) * memory * 1e9 - sum(fixed.values())
    share, each = whole // gpus, cost[f"activation_bytes{kind}"]
    fitting = [n for n in range(1, share + 1) if share % n == 0 and max(n * each, copies) <= room]
    found = max(fitting, default=0)
    stored = FLOAT * cost["stored_parameters"]  # frozen ones that lie in the model's file, too
    state = stored * (1 + bool(loop.ema)) + FLOAT * trained * ADAMW_STATE
    speed, source, measured = _speed(recipe, device, kind)
    return Plan(
        found, share // found if found else 0, **fixed, activations=max(max(found, 1) * each, copies),
        checkpoints=(KEEP + 1) * state + stored, hours=loop.steps * whole / (gpus * speed) / 3600,
        speed_from=source, measured=measured,
    )  # fmt: skip


def _speed(recipe: str, device: str, kind: str) -> tuple[float, str, bool]:
    """Samples per second and GPU, what that rests on, and whether somebody measured it for this recipe and device."""
    for known in costs()["speeds"]:
        if not kind and (known["recipe"], known["device"]) == (recipe, device):
            return known["samples_per_s"], known["source"], True
    known = costs()["speeds"][0]
    work = cost_of(known["recipe"])["operations"] / cost_of(recipe)[f"operations{kind}"]
    faster = costs()["devices"][device] / costs()["devices"][known["device"]]
    source = (
        f"{known['samples_per_s']} samples/s of {known['recipe']} on a {known['device']} ({known['source']}), "
        f"x {work:.3g} by the operations per sample, x {faster:.3g} by the GPUs' peaks"
    )
    return known["samples_per_s"] * work * faster, source, False


def describe(plan: Plan, cost: Mapping[str, Any], gpus: int, memory: float) -> list[str]:
    """The plan in lines: what, how much, and whether that is measured, computed or estimated."""
    parts = {"weights": plan.weights, "gradients": plan.gradients, "optimiser": plan.optimizer}
    parts |= {"activations" if plan.batch else "activations of one sample": plan.activations}
    held = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    batch = f"{plan.batch} per GPU x {gpus} GPUs x {plan.accumulation} accumulated" if plan.batch else "does not fit"
    given = f"{memory:g} GB, {SPARE:.0%} of it left free, a rule of thumb"
    millions = f"{cost['trained_parameters'] / 1e6:.2f} M trained, {cost['frozen_parameters'] / 1e6:.2f} M frozen"
    lines = [
        f"  batch       {batch}  [estimated: the largest that fits in {given}]",
        f"  parameters  {millions}  [measured: counted]",
        f"  memory      {plan.memory / 1e9:.2f} GB per GPU: {held}  [computed from measured ones]",
        f"              measured on {cost['how']}, {cost['date']}: {cost['command']}; covers the {cost['covers']}",
        f"  hours       {plan.hours:.3g}  [{'computed from' if plan.measured else 'estimated:'} {plan.speed_from}]",
        f"  checkpoints {plan.checkpoints / 1e9:.2f} GB on disk  [computed: {KEEP}, one being written, the weights]",
    ]
    if plan.accumulation > 1:
        lines.append(
            f"  note        accumulated batches are apart: a loss that compares samples of all GPUs sees "
            f"{plan.batch * gpus} of {plan.batch * gpus * plan.accumulation}; "
            "more GPUs or --recompute keep them together"
        )
    return lines
