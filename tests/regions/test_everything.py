"""Everything in an image: which regions are shown, against a loop over pixels, and how they lie on each other."""

import itertools

import numpy as np
import pytest
import torch

from kit.images import random_masks
from ovs_lite.regions.everything import named_regions, region_labels


def drawn(seed, count=8, classes=3):
    """Soft random masks, one of them twice and one empty, and probabilities whose rows sum to less than 1."""
    draw = torch.Generator().manual_seed(seed)
    solid = random_masks(count, 12, 14, smallest=6)
    noise = torch.rand(solid.shape, generator=draw)
    masks = torch.where(solid, 0.55 + 0.45 * noise, 0.4 * noise)
    masks = torch.cat([masks, masks[:1] * 0.99, torch.full((1, 12, 14), 0.3)])
    return masks, 0.9 * torch.rand(len(masks), classes, generator=draw).softmax(1)


def slow_regions(masks, probs, budget, least, overlap):
    """(class, score, pixels) of what is shown: one mask after the other, compared with all that stand."""
    candidates = []
    for mask, row in zip(masks.double().numpy(), probs.double().numpy(), strict=True):
        pixels = {(y, x) for y, x in itertools.product(range(12), range(14)) if mask[y, x] > 0.5}
        if pixels:
            sure = sum(mask[place] for place in pixels) / len(pixels)
            candidates.append((int(row.argmax()), float(row.max() * sure), pixels))
    candidates = sorted((one for one in candidates if one[1] >= least), key=lambda one: -one[1])
    distinct = []
    for one in candidates:
        if all(len(one[2] & other[2]) < overlap * len(one[2] | other[2]) for other in distinct):
            distinct.append(one)
    shown = []
    for one in distinct:
        same = [other for other in shown if other[0] == one[0]]
        if all(len(one[2] & other[2]) < 0.7 * len(one[2]) for other in same):
            shown.append(one)
    return shown[:budget]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget, least, overlap", [(20, 0.0, 0.7), (3, 0.0, 0.7), (20, 0.2, 0.3), (20, 0.0, 1.0)])
def test_the_regions_equal_a_loop_over_pixels(seed, budget, least, overlap):
    masks, probs = drawn(seed)
    expected = slow_regions(masks, probs, budget, least, overlap)
    found = named_regions(masks, probs, budget, least, overlap)
    assert len(found) == len(expected) > 0
    for region, (category, score, pixels) in zip(found, expected, strict=True):
        assert region["category_id"] == category and region["score"] == pytest.approx(score, abs=1e-6)
        assert {tuple(place) for place in np.argwhere(region["mask"].numpy()).tolist()} == pixels


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_proposals_and_of_classes_changes_nothing(seed):
    masks, probs = drawn(seed)
    order, classes = torch.randperm(len(masks), generator=torch.Generator().manual_seed(seed)), torch.tensor([2, 0, 1])
    found, again = named_regions(masks, probs), named_regions(masks[order], probs[order][:, classes])
    assert len(found) == len(again)
    for first, second in zip(found, again, strict=True):
        assert torch.equal(first["mask"], second["mask"]) and first["category_id"] == int(
            classes[second["category_id"]]
        )


def strips(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, None]


def test_a_thing_found_twice_has_one_name_and_a_part_of_another_class_stays():
    masks = strips([1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0])
    cup, wheel = [0.8, 0.1], [0.1, 0.6]
    found = named_regions(masks, torch.tensor([cup, wheel, wheel, [0.7, 0.2]]))
    assert [(region["category_id"], int(region["mask"].sum())) for region in found] == [(0, 4), (1, 2)]


def test_smaller_regions_lie_over_larger_ones_and_of_equals_the_better():
    masks = strips([1, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0])
    regions = [{"mask": mask > 0} for mask in masks]
    assert region_labels(regions, (1, 5)).tolist() == [[0, 1, 0, 2, -1]]
    assert region_labels(regions[::-1], (1, 5)).tolist() == [[3, 2, 3, 1, -1]]
    assert region_labels([regions[1], regions[1]], (1, 5)).tolist() == [[-1, 0, -1, -1, -1]]


def test_nothing_to_show_and_what_does_not_fit():
    none = torch.zeros(0, 4, 5)
    assert named_regions(none, torch.zeros(0, 2)) == []
    assert named_regions(torch.full((2, 4, 5), 0.5), torch.ones(2, 2)) == []
    assert (region_labels([], (4, 5)) == -1).all()
    for masks, probs in ((none[0:0, 0], torch.zeros(0, 2)), (none, torch.zeros(1, 2)), (none, torch.zeros(0, 0))):
        with pytest.raises(ValueError, match="expected \\(N, H, W\\) and \\(N, K\\)"):
            named_regions(masks, probs)
    for settings in ({"budget": 0}, {"overlap": 1.5}):
        with pytest.raises(ValueError, match="expected at least 1, and 0..1"):
            named_regions(none, torch.zeros(0, 2), **settings)
