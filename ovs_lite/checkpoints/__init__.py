"""What a training run keeps on disk: its steps and trained weights; and readers of the layouts that papers released."""

from importlib import import_module

_HOMES = {
    "Checkpoint": "checkpoints.steps", "latest_checkpoint": "checkpoints.steps", "load_checkpoint": "checkpoints.steps",
    "remove_checkpoints": "checkpoints.steps", "save_checkpoint": "checkpoints.steps",
    "load_official_ovseg_clip": "methods.ovseg.released", "load_official_tcl": "methods.tcl.released",
    "check_checkpoint": "methods.trained", "load_method": "methods.trained", "save_method": "methods.trained",
}  # fmt: skip


def __getattr__(name: str):
    """Import a name's module only when it is asked for: a training's steps need no CLIP."""
    if name in _HOMES:
        return getattr(import_module(f"ovs_lite.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = list(_HOMES)
