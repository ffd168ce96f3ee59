"""Learning-rate factors over the steps of a run: all warm up linearly and then follow their own curve."""

import math
from collections.abc import Callable


# Factor by the share of the steps after the warm-up, in [0, 1].
CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.02 + (1 - 0.02) * 0.5 * (1 + math.cos(math.pi * progress)),  # ends at 0.02
    "poly": lambda progress: (1 - progress) ** 0.9,  # as MaskFormer and OVSeg train
    # Uni-OVSeg's milestones: 93,500 and 104,500 of 110,000 steps
    "step": lambda progress: 0.1 ** sum(progress >= milestone for milestone in (0.85, 0.95)),
    "constant": lambda progress: 1.0,
}


def learning_rate_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The factor of a step: linear up to 1 over `warmup` steps, then `schedule`, a name of CURVES, until `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return CURVES[schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))
