"""What is kept on disk of a training: its steps, a method's trained weights, and the layouts that papers released."""

from ovs_lite.checkpoints.method_weights import check_checkpoint, load_method, save_method
from ovs_lite.checkpoints.official_tcl import load_official_tcl
from ovs_lite.checkpoints.steps import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)

__all__ = [
    "Checkpoint", "check_checkpoint", "latest_checkpoint", "load_checkpoint", "load_method", "load_official_tcl",
    "remove_checkpoints", "save_checkpoint", "save_method",
]  # fmt: skip
