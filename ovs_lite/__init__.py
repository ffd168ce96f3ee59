"""ovs-lite: a teaching and reproduction kit for open-vocabulary segmentation. Type words at a picture, see masks.

import ovs_lite
result = ovs_lite.load("maskclip").segment("photo.jpg", ["cat", "grass"])
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Before torch is loaded: threads that wait give their core away. Beside one other busy process a training step took
# ten times as long with threads that spin, which gain a tenth on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from ovs_lite.notebook.explorer import explore
    from ovs_lite.segmenter import Segmentation, Segmenter, load

__version__ = "0.1.0"
__all__ = ["Segmentation", "Segmenter", "__version__", "explore", "load"]


def __getattr__(name: str):
    """Import the segmenter, and torch with it, only when it is asked for: `import ovs_lite` stays quick."""
    if name in ("Segmentation", "Segmenter", "load"):
        return getattr(import_module("ovs_lite.segmenter"), name)
    if name == "explore":
        return import_module("ovs_lite.notebook.explorer").explore
    raise AttributeError(f"module 'ovs_lite' has no attribute {name!r}")
