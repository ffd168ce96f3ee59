"""Uni-OVSeg's masks alone (paper: section 3, mask generation): from a point or a box to masks of what lies there."""

from ovs_lite.methods.proposer import proposer_recipe
from ovs_lite.methods.uniovseg.config import PRESETS, SOURCES
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.methods.uniovseg.training import build

RECIPE = proposer_recipe(
    name="uniovseg-masks",
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    example="uniovseg-masks --steps 2000 --matching one-to-one --out runs/uniovseg-one-to-one",
    model=PromptSegmenter,
)
