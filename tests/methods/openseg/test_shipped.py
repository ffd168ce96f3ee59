"""The weights in the package: they are there, they fit the shipped CLIP, and they are worth loading."""

import pytest
import torch

from ovs_lite.checkpoints import load_method
from ovs_lite.clip import load_clip
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets


@pytest.mark.slow
@torch.no_grad()
def test_grounding_beats_the_clip_it_started_from_with_and_without_its_proposals():
    """On scenes that no training showed, half of them in unseen styles; only the words of each picture compete."""
    vocabulary = load_vocabulary("icon-ade150")
    scenes = list(iter_records(icon_sets("icon-ade150")[0], 64, 128, seed=77))
    methods = {"clip-cam": load_method("clip-cam", load_clip("ConvNeXt-Lite"))}
    methods |= {name: load_method(name) for name in ("clip-proposals", "lseg", "openseg")}
    found = {
        name: 100 * evaluate_segmentation(method, scenes, vocabulary, present_only=True).scores.miou
        for name, method in methods.items()
    }
    assert found["openseg"] > max(found[name] for name in found if name != "openseg") + 2, found
