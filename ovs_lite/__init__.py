"""ovs-lite: a teaching and reproduction kit for open-vocabulary segmentation. Type words at a picture, see masks.

import ovs_lite
result = ovs_lite.load("maskclip").segment("photo.jpg", ["cat", "grass"])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovs_lite.segmenter import Segmentation, Segmenter, load

__version__ = "0.1.0"
__all__ = ["Segmentation", "Segmenter", "__version__", "load"]


def __getattr__(name: str):
    """Import the segmenter, and torch with it, only when it is asked for: `import ovs_lite` stays quick."""
    if name in ("Segmentation", "Segmenter", "load"):
        return getattr(import_module("ovs_lite.segmenter"), name)
    raise AttributeError(f"module 'ovs_lite' has no attribute {name!r}")
