"""The methods and recipes by name. A new one is a folder (or a file) and one line here; its module is imported when it
is asked for, and torch with it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovs_lite.config import ClipConfig, lookup

if TYPE_CHECKING:  # so that the names are known without torch
    from ovs_lite.clip import Clip
    from ovs_lite.methods.base import Method
    from ovs_lite.methods.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """Where a name is defined: a module of `ovs_lite.methods` with METHOD, if it predicts, and RECIPE, if it trains.

    method: what a module that holds several methods calls this one.
    """

    module: str
    predicts: bool = True
    trains: bool = False
    method: str = "METHOD"


ENTRIES = {
    "maskclip": Entry("maskclip"),
    "clip-cam": Entry("clip_cam"),
    "sclip": Entry("dense_attention", method="SClip"),
    "clearclip": Entry("dense_attention", method="ClearClip"),
    "naclip": Entry("dense_attention", method="NaClip"),
    "reco": Entry("reco"),
    "tcl": Entry("tcl", trains=True),
    "groupvit": Entry("groupvit"),
    "openseg": Entry("openseg", trains=True),
    "lseg": Entry("lseg", trains=True),
    "ovseg": Entry("ovseg", trains=True),
    "uniovseg": Entry("uniovseg", trains=True),
    "clip-proposals": Entry("openseg.clip_proposals"),
    "openseg-proposals": Entry("openseg.masks_recipe", predicts=False, trains=True),
    "maskformer": Entry("maskformer", predicts=False, trains=True),
    "uniovseg-masks": Entry("uniovseg.masks_recipe", predicts=False, trains=True),
    "clip": Entry("clip_pretraining", predicts=False, trains=True),
}
FORMER_NAMES = {("proposals", "openseg"): "openseg-proposals", ("proposals", "maskformer"): "maskformer"}
DEFAULT_METHOD = "maskclip"  # of `load` and `segment`: needs no training
DEFAULT_NAMER = "uniovseg"  # of `segment --everything`: whose masks are of single things
METHODS = {name: entry for name, entry in ENTRIES.items() if entry.predicts}
RECIPES = {name: entry for name, entry in ENTRIES.items() if entry.trains}


def method_class(name: str) -> type[Method]:
    """A method's class by name. Raises ValueError listing the valid names."""
    entry = lookup(METHODS, name, "method")
    return getattr(_module(entry), entry.method)


def get_method(name: str, clip: Clip) -> Method:
    """A method by name, built on a CLIP. Raises ValueError listing the valid names."""
    return method_class(name)(clip)


def mask_methods() -> dict[str, str]:
    """Who brings mask proposals: {name of a mask-based method, or of the recipe of its masks: the method's name}."""
    found = {name: masks for name in METHODS if (masks := method_class(name).masks_of)}
    return {masks: name for name, masks in reversed(found.items())} | {name: name for name in found}


def get_recipe(name: str) -> Recipe:
    """What trains under that name. Raises ValueError listing the valid names."""
    return _module(lookup(RECIPES, name, "recipe")).RECIPE


def split_changes(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Dotted changes of a profile, and {recipe: changes} of those whose key begins with a recipe's name.

    `clip` is both the profile's CLIP and a recipe: `clip.name` and `clip.pretrained` are the profile's.
    """
    of_profile, of_recipes = {}, {}
    own = {f"clip.{item.name}" for item in fields(ClipConfig)}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if first in RECIPES and key not in own:
            of_recipes.setdefault(first, {})[rest] = value
        else:
            of_profile[key] = value
    return of_profile, of_recipes


def _module(entry: Entry):
    return import_module(f"ovs_lite.methods.{entry.module}")
