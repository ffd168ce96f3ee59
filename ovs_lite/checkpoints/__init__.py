"""What a training run keeps on disk: its steps and trained weights; and readers of the layouts that papers released."""

from importlib import import_module

_HOMES = {
    "Checkpoint": "ovs_lite.checkpoints.steps",
    "latest_checkpoint": "ovs_lite.checkpoints.steps",
    "load_checkpoint": "ovs_lite.checkpoints.steps",
    "remove_checkpoints": "ovs_lite.checkpoints.steps",
    "save_checkpoint": "ovs_lite.checkpoints.steps",
    "load_official_ovseg_clip": "ovs_lite.methods.ovseg.released",
    "load_official_tcl": "ovs_lite.methods.tcl.released",
    "check_checkpoint": "ovs_lite.methods.trained",
    "load_method": "ovs_lite.methods.trained",
    "save_method": "ovs_lite.methods.trained",
}


def __getattr__(name: str):
    """Import a name's module only when it is asked for: a training's steps need no CLIP."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = list(_HOMES)
