"""Methods: one file per paper or baseline. What is frozen, what is trained, and the tensor-level `predict`."""

from difflib import get_close_matches

from ovs_lite.clip import Clip
from ovs_lite.methods.base import Method
from ovs_lite.methods.clip_cam import ClipCam
from ovs_lite.methods.maskclip import MaskClip
from ovs_lite.methods.reco import Reco
from ovs_lite.methods.tcl import Tcl

METHODS: dict[str, type[Method]] = {method.name: method for method in (MaskClip, ClipCam, Reco, Tcl)}


def method_class(name: str) -> type[Method]:
    """A method's class by name. Raises ValueError listing the valid names."""
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"got method {name!r}, expected one of {', '.join(METHODS)}{hint}")
    return METHODS[name]


def get_method(name: str, clip: Clip) -> Method:
    """A method by name, built on a CLIP. Raises ValueError listing the valid names."""
    return method_class(name)(clip)


__all__ = ["METHODS", "Method", "get_method", "method_class"]
