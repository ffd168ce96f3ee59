"""The methods and recipes by name. A new one is a folder (or a file) and one line here; its module is imported when it
is asked for, and torch with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "openseg": Entry("openseg", trains=True),
    "lseg": Entry("lseg", trains=True),
    "clip-proposals": Entry("openseg.clip_proposals"),
    "openseg-proposals": Entry("openseg.proposals", predicts=False, trains=True),
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


def split_changes(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Dotted changes of a profile, and {recipe: changes} of those whose key begins with a recipe's name."""
    of_profile, of_recipes = {}, {}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if first in RECIPES:
            of_recipes.setdefault(first, {})[rest] = value
        else:
            of_profile[key] = value
    return of_profile, of_recipes


def _module(entry: Entry):
    return import_module(f"ovs_lite.methods.{entry.module}")
