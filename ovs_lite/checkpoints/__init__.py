"""What a training run keeps on disk: its steps and trained weights; and readers of the layouts that papers released."""

from ovs_lite.checkpoints.steps import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from ovs_lite.methods.ovseg.released import load_official_ovseg_clip
from ovs_lite.methods.tcl.released import load_official_tcl
from ovs_lite.methods.trained import check_checkpoint, load_method, save_method

__all__ = [
    "Checkpoint", "check_checkpoint", "latest_checkpoint", "load_checkpoint", "load_method",
    "load_official_ovseg_clip", "load_official_tcl", "remove_checkpoints", "save_checkpoint", "save_method",
]  # fmt: skip
