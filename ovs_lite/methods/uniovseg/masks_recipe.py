"""Uni-OVSeg's masks alone (paper: section 3, mask generation): from a point or a box to masks of what lies there."""

from ovs_lite.methods.proposer import WEIGHTS, load_proposer
from ovs_lite.methods.recipe import Recipe
from ovs_lite.methods.uniovseg.config import PRESETS, SOURCES
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.methods.uniovseg.training import build

RECIPE = Recipe(
    name="uniovseg-masks",
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    save=lambda task, path, config: task.proposer.save(path),
    load=lambda path, config: load_proposer(path),
    weights=lambda config: WEIGHTS,
    example="uniovseg-masks --steps 2000 --matching one-to-one --out runs/uniovseg-one-to-one",
    model=PromptSegmenter,
)
