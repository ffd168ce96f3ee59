"""The weights in the package: they are there, they fit the shipped CLIP, and they are worth loading."""

import pytest
import torch

from ovs_lite.checkpoints import load_method
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.evaluation.grid import evaluate_grid
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods.ovseg.method import OVSeg


@pytest.mark.slow
@torch.no_grad()
def test_the_adapted_clip_reads_masked_crops_better_alone_and_behind_proposals():
    """On scenes that no training showed, half of them in unseen styles."""
    vocabulary, method = load_vocabulary("icon-context59"), load_method("ovseg")
    scenes = list(iter_records(icon_sets("icon-context59")[0], 48, 128, seed=77))
    torch.manual_seed(0)
    readers = {"CLIP": method.clip, "untrained prompts": MaskPromptedClip(method.clip, method.prompted.depth)}
    readers["OVSeg"] = method.prompted
    named = {
        name: evaluate_grid(scenes, reader, vocabulary, {}, ("masked crops",)).table["ground truth"]["masked crops"]
        for name, reader in readers.items()
    }
    assert named["OVSeg"] > named["CLIP"] + 0.05 and named["OVSeg"] > named["untrained prompts"], named
    plain = OVSeg(method.clip, method.network["segmenter"], MaskPromptedClip(method.clip, 0)).eval()
    found = [evaluate_segmentation(one, scenes, vocabulary, ensemble_weight=1.0).scores.miou for one in (plain, method)]
    assert found[1] > found[0], found
