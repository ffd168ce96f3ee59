"""Learning-rate factors over the steps of a run: all warm up linearly and then follow their own curve."""

import math
from collections.abc import Callable, Sequence


def cosine_factor(progress: float, floor: float = 0.02) -> float:
    """A half cosine from 1 down to `floor`. progress: share of the steps after the warm-up, in [0, 1]."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def poly_factor(progress: float, power: float = 0.9) -> float:
    """(1 - progress) ** power, as MaskFormer and OVSeg train."""
    return (1 - progress) ** power


def step_factor(progress: float, milestones: Sequence[float] = (0.85, 0.95), gamma: float = 0.1) -> float:
    """1, and gamma times less after each milestone; Uni-OVSeg's are at 93,500 and 104,500 of 110,000 steps."""
    return gamma ** sum(progress >= milestone for milestone in milestones)


CURVES: dict[str, Callable[[float], float]] = {
    "cosine": cosine_factor,
    "poly": poly_factor,
    "step": step_factor,
    "constant": lambda progress: 1.0,
}


def learning_rate_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The factor of a step: linear up to 1 over `warmup` steps, then `schedule`, a name of CURVES, until `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return CURVES[schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))
