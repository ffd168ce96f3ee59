"""The methods and recipes by name. A new one is a folder (or a file) and one line here; its module is imported when it
is asked for, and torch with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ovs_lite.config import lookup

if TYPE_CHECKING:  # so that the names are known without torch
    from ovs_lite.clip import Clip
    from ovs_lite.methods.base import Method
    from ovs_lite.methods.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """Where a name is defined: a module of `ovs_lite.methods` with METHOD, if it predicts, and RECIPE, if it trains."""

    module: str
    predicts: bool = True
    trains: bool = False


ENTRIES = {
    "maskclip": Entry("maskclip"),
    "clip-cam": Entry("clip_cam"),
    "reco": Entry("reco"),
    "tcl": Entry("tcl", trains=True),
    "groupvit": Entry("groupvit"),
    "openseg-proposals": Entry("openseg", predicts=False, trains=True),
    "maskformer": Entry("maskformer", predicts=False, trains=True),
    "clip": Entry("clip_pretraining", predicts=False, trains=True),
}
FORMER_NAMES = {("proposals", "openseg"): "openseg-proposals", ("proposals", "maskformer"): "maskformer"}
DEFAULT_METHOD = "maskclip"  # of `load` and `segment`: needs no training
METHODS = {name: entry for name, entry in ENTRIES.items() if entry.predicts}
RECIPES = {name: entry for name, entry in ENTRIES.items() if entry.trains}


def method_class(name: str) -> type[Method]:
    """A method's class by name. Raises ValueError listing the valid names."""
    return _module(lookup(METHODS, name, "method")).METHOD


def get_method(name: str, clip: Clip) -> Method:
    """A method by name, built on a CLIP. Raises ValueError listing the valid names."""
    return method_class(name)(clip)


def get_recipe(name: str) -> Recipe:
    """What trains under that name. Raises ValueError listing the valid names."""
    return _module(lookup(RECIPES, name, "recipe")).RECIPE


def _module(entry: Entry):
    return import_module(f"ovs_lite.methods.{entry.module}")
