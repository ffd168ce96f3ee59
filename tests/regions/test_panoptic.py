"""Segments from masks with class probabilities: against loops over masks, and hand-made cases."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kit.oracles.segmentation import category_map
from ovs_lite.evaluation import PanopticQuality
from ovs_lite.regions import panoptic
from ovs_lite.regions.panoptic import UNI_OVSEG, panoptic_segments

IS_THING = [True, False, True, False]
MASK2FORMER = {"object_threshold": 0.8, "overlap_threshold": 0.8}
FC_CLIP = {"object_threshold": 0.0, "overlap_threshold": 0.8}


def slow_segments(masks, probs, is_thing, object_threshold, overlap_threshold):
    """The released rule, one mask and one Boolean map at a time."""
    classes = len(is_thing)
    kept = [n for n in range(len(masks)) if probs[n].argmax() < classes and probs[n].max() > object_threshold]
    ids, infos, stuff = np.zeros(masks.shape[1:], int), [], {}
    if not kept:
        return ids, infos
    weighted = np.stack([probs[n].max() * masks[n] for n in kept])
    best = weighted.argmax(0)
    for place, n in enumerate(kept):
        category, own = int(probs[n].argmax()), masks[n] >= 0.5
        region = (best == place) & own
        if not region.any() or (best == place).sum() / own.sum() < overlap_threshold:
            continue
        if not is_thing[category] and category in stuff:
            ids[region] = stuff[category]
            continue
        infos.append((len(infos) + 1, category))
        ids[region] = len(infos)
        stuff[category] = len(infos)
    return ids, infos


def case(seed, count=9, void=True):
    draw = torch.Generator().manual_seed(seed)
    centres, spread = torch.rand(count, 2, 1, 1, generator=draw) * 20, 2 + 6 * torch.rand(count, 1, 1, generator=draw)
    y, x = torch.meshgrid(torch.arange(18.0), torch.arange(22.0), indexing="ij")
    distance = ((torch.stack([y, x]) - centres) ** 2).sum(1).sqrt()
    masks = torch.sigmoid(2 * (spread - distance) + torch.randn(count, 18, 22, generator=draw))
    probs = (3 * torch.randn(count, len(IS_THING) + void, generator=draw)).softmax(1)
    return masks, probs


@pytest.mark.parametrize("settings", [MASK2FORMER, FC_CLIP, UNI_OVSEG])
@pytest.mark.parametrize("void", [True, False])
def test_segments_equal_the_loop(settings, void, monkeypatch):
    monkeypatch.setattr(panoptic, "PIXELS_AT_ONCE", 50)
    segments, merged = 0, 0
    for seed in range(60):
        masks, probs = case(seed, void=void)
        ids, infos = panoptic_segments(masks, probs, IS_THING, **settings)
        expected, expected_infos = slow_segments(masks.numpy(), probs.numpy(), IS_THING, *settings.values())
        assert (ids.numpy() == expected).all() and ids.dtype == torch.int64
        assert [(info["id"], info["category_id"]) for info in infos] == expected_infos
        assert all(info["area"] == (expected == info["id"]).sum() for info in infos)
        assert [info["is_thing"] for info in infos] == [IS_THING[c] for _, c in expected_infos]
        segments, merged = segments + len(infos), merged + (len(set(np.unique(expected)) - {0}) > 1)
    assert segments > 60 and merged > 15


def test_what_they_give_is_a_record_and_a_prediction():
    masks, probs = case(3)
    ids, infos = panoptic_segments(masks, probs, IS_THING, **FC_CLIP)
    scores = PanopticQuality(IS_THING).update(ids, infos, ids.numpy(), infos).compute()
    assert scores.all.pq == 1 and scores.all.classes == len({info["category_id"] for info in infos}) > 1
    owners = category_map({"segments_info": infos, "segments": ids.numpy()})
    assert set(np.unique(owners)) - {-1} == {info["category_id"] for info in infos}


def test_stuff_of_a_class_is_one_segment_and_things_are_not():
    masks = torch.zeros(3, 2, 3)
    masks[0, :, 0] = masks[1, :, 2] = masks[2, 0, 1] = 1
    probs = torch.tensor([[0.9, 0.05], [0.95, 0.0], [0.9, 0.0]])
    stuff, infos = panoptic_segments(masks > 0, probs, [False, True])
    assert stuff.tolist() == [[1, 1, 1], [1, 0, 1]] and len(infos) == 1 and infos[0]["bbox"] == [0, 0, 3, 2]
    things, infos = panoptic_segments(masks, probs, [True, False])
    assert things.tolist() == [[1, 3, 2], [1, 0, 2]] and [info["id"] for info in infos] == [1, 2, 3]


def test_a_mask_that_mostly_lost_its_pixels_is_dropped_at_the_threshold():
    masks = torch.zeros(2, 1, 5)
    masks[0], masks[1, 0, 0] = 0.9, 1
    probs = torch.tensor([[0.9], [0.95]])
    both, infos = panoptic_segments(masks, probs, [True], overlap_threshold=0.8)
    assert both.tolist() == [[2, 1, 1, 1, 1]] and len(infos) == 2, "four of five are 0.8"
    one, infos = panoptic_segments(masks, probs, [True], overlap_threshold=0.81)
    assert one.tolist() == [[1, 0, 0, 0, 0]] and len(infos) == 1, "what it had won is void, not the next one's"
    half = panoptic_segments(torch.tensor([[[0.5, 0.49]]]), torch.tensor([[1.0]]), [True], overlap_threshold=0.0)[0]
    assert half.tolist() == [[1, 0]]


def test_pixels_without_any_mask_help_no_mask_to_its_share():
    masks = torch.tensor([[[1, 1, 1, 1, 1, 0, 0, 0, 0]], [[0, 1, 1, 1, 1, 0, 0, 0, 0]]]) > 0
    ids, infos = panoptic_segments(masks, torch.tensor([[0.9], [0.95]]), [True])
    assert ids.tolist() == [[0, 1, 1, 1, 1, 0, 0, 0, 0]] and len(infos) == 1


class LargestMade(TorchDispatchMode):
    """Remembers how many values the largest new tensor has; a view of a given one is not new."""

    def __init__(self, *given):
        super().__init__()
        self.known, self.values = {tensor.untyped_storage().data_ptr() for tensor in given}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.values = max(self.values, tensor.numel())
        return made


def test_beside_the_masks_no_second_set_of_masks_is_held(monkeypatch):
    monkeypatch.setattr(panoptic, "PIXELS_AT_ONCE", 100)
    masks, probs = case(1, count=40)
    with LargestMade(masks) as largest:
        infos = panoptic_segments(masks, probs, IS_THING, object_threshold=0.0, overlap_threshold=0.0)[1]
    assert len(infos) > 2 and 100 < largest.values <= 40 * 100 < masks.numel() / 3


def test_low_scores_and_no_object_are_dropped():
    masks = torch.ones(3, 1, 2)
    probs = torch.tensor([[0.8, 0.0, 0.2], [0.3, 0.1, 0.6], [0.1, 0.7, 0.2]])
    ids, infos = panoptic_segments(masks, probs, [True, True], object_threshold=0.8)
    assert not ids.any() and infos == [], "a score must exceed the threshold"
    ids, infos = panoptic_segments(masks, probs, [True, True], object_threshold=0.0)
    assert ids.unique().tolist() == [1] and [info["category_id"] for info in infos] == [0]
    ids, infos = panoptic_segments(masks[1:2], probs[1:2], [True, True], object_threshold=0.0)
    assert not ids.any() and infos == []


def test_no_masks_and_shapes_that_do_not_fit():
    ids, infos = panoptic_segments(torch.zeros(0, 3, 4), torch.zeros(0, 4), IS_THING)
    assert infos == [] and ids.shape == (3, 4) and not ids.any()
    masks, probs = case(0)
    for wrong in ((masks[0], probs), (masks[:2], probs), (masks, probs[:, :3]), (masks, probs[:, :0])):
        with pytest.raises(ValueError, match="expected .N, H, W. and .N, K"):
            panoptic_segments(*wrong, IS_THING if wrong[1].shape[1] else [])
