"""The weights in the package: they are there, they fit the shipped CLIP, and they are worth loading."""

import copy

import pytest
import torch
from torch import nn

import ovs_lite
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.evaluation.promptable import evaluate_promptable
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.tensors import tensors_digest


def scenes_of(name, count):
    """Scenes that no training showed, half of them in unseen styles."""
    return list(iter_records(icon_sets(name)[0], count, 128, seed=77))


def pooled(method):
    """The same masks, named by CLIP without its adapter: the paper's baseline."""
    found = copy.deepcopy(method)
    for adapter in found.aligned.adapter:
        nn.init.zeros_(adapter.up.weight)
    return found


def find_masks_once(monkeypatch):
    """The grid's masks of the same features are kept: both methods have one segmenter's weights."""
    kept, grid_masks = {}, PromptSegmenter.grid_masks

    def once(segmenter, seen):
        key = tensors_digest("seen", [seen.features.pixels])
        if key not in kept:
            kept[key] = grid_masks(segmenter, seen)
        return kept[key]

    monkeypatch.setattr(PromptSegmenter, "grid_masks", once)
    return kept


@pytest.mark.slow
@torch.no_grad()
def test_the_adapter_beats_the_pooled_clip_and_its_like_without_any(monkeypatch):
    """Only the words of each picture compete."""
    masks = find_masks_once(monkeypatch)
    method, vocabulary = ovs_lite.load("uniovseg").method, load_vocabulary("icon-ade150")
    plain, scenes = pooled(method), scenes_of("icon-ade150", 64)
    plain_clip = ovs_lite.load("clip-cam", clip="ConvNeXt-Lite").method
    found = {
        name: 100 * evaluate_segmentation(one, scenes, vocabulary, present_only=True).scores.miou
        for name, one in {"adapted": method, "pooled": plain, "clip-cam": plain_clip}.items()
    }
    assert found["adapted"] > found["pooled"] + 1 > found["clip-cam"] + 1, found
    assert len(masks) == len(scenes), "they saw the same"


@pytest.mark.slow
def test_boxes_and_points_find_masks():
    prompter = ovs_lite.load("uniovseg").method.prompter
    report = evaluate_promptable(
        prompter.masks_at, scenes_of("icon-coco", 24), look=prompter.look, kinds=["1-box", "inner point"]
    )
    assert report.iou("1-box").value > 0.65 and report.iou("inner point").value > 0.55, report.overlaps
