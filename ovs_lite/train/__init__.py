"""Training: one accelerate loop for every recipe, exact resume, schedules, and the one training command."""

from ovs_lite.config import LoopConfig
from ovs_lite.train.loop import NonFiniteLoss, OnStep, total_loss, train

__all__ = ["LoopConfig", "NonFiniteLoss", "OnStep", "total_loss", "train"]
