"""Proposal recall against sets of pixels: the budget, thresholds met exactly, pooling, shards and empty cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from kit.oracles.masks import pixels
from ovs_lite.evaluation.metrics.recall import BUDGET, THRESHOLDS, best_iou, mask_iou, proposal_recall

GRID = (0.1, 0.25, 0.5, 0.7, 0.9, 1.0)


def boxes(count, seed=0, height=9, width=11):
    """Random boxes with some pixels missing."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in (height, width))
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.9
    return torch.from_numpy(masks)


def slow_best(masks, targets, budget):
    best = []
    for target in map(pixels, targets):
        overlaps = [0.0]
        for mask in itertools.islice(map(pixels, masks), budget):
            overlaps.append(len(mask & target) / len(mask | target) if mask | target else 0.0)
        best.append(max(overlaps))
    return best


def strip(*covered, length=10):
    """One-line masks, each given as a range of covered pixels."""
    masks = torch.zeros(len(covered), 1, length, dtype=torch.bool)
    for mask, (start, stop) in zip(masks, covered, strict=True):
        mask[0, start:stop] = True
    return masks


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 3, 12, 100, None])
def test_equals_the_slow_oracle(seed, budget):
    masks, targets = boxes(12, seed), boxes(7, seed + 100)
    expected = slow_best(masks, targets, budget)
    assert best_iou(masks, targets, budget).tolist() == expected and max(expected) > 0.1
    found = proposal_recall(masks, targets, GRID, budget)
    assert found == {t: sum(best >= t for best in expected) / 7 for t in GRID}


def test_soft_masks_count_above_one_half():
    masks, targets = boxes(12, 3), boxes(7, 4)
    soft = torch.where(masks, 0.51, 0.5)
    assert torch.equal(best_iou(soft, targets), best_iou(masks, targets))
    assert torch.equal(best_iou(masks, torch.where(targets, 1.0, 0.0)), best_iou(masks, targets))
    assert torch.equal(best_iou(masks.to(torch.uint8), targets.half()), best_iou(masks, targets))


@pytest.mark.parametrize(("length", "threshold"), [(5, 0.5), (7, 0.7), (9, 0.9), (10, 1.0), (1, 0.1), (3, 0.3)])
def test_a_threshold_met_exactly_counts_as_found(length, threshold):
    """length / 10 pixels overlap; one pixel less is a miss."""
    target = strip((0, 10))
    assert proposal_recall(strip((0, length)), target, [threshold]) == {threshold: 1.0}
    assert proposal_recall(strip((0, length - 1)), target, [threshold]) == {threshold: 0.0}
    big = strip((0, 10 * length), length=2000), strip((0, 100), length=2000)
    assert proposal_recall(*big, [threshold]) == {threshold: 1.0}


def test_every_fraction_of_small_numbers_reaches_itself():
    for whole in range(1, 60):
        for part in range(whole + 1):
            overlap = best_iou(strip((0, part), length=60), strip((0, whole), length=60))
            assert overlap.item() == part / whole


def test_only_the_first_proposals_of_the_budget_count():
    masks, target = torch.cat([strip(*[(0, 1)] * BUDGET), strip((0, 10))]), strip((0, 10))
    assert BUDGET == 128 and THRESHOLDS == (0.5, 0.7, 0.9)
    assert proposal_recall(masks, target) == dict.fromkeys(THRESHOLDS, 0.0)
    assert proposal_recall(masks, target, budget=129) == proposal_recall(masks, target, budget=None)
    assert proposal_recall(masks.flip(0), target) == dict.fromkeys(THRESHOLDS, 1.0)


def test_order_copies_and_bad_proposals_change_nothing():
    masks, targets = boxes(12, 5), boxes(7, 6)
    best = best_iou(masks, targets, None)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(best_iou(masks[order], targets, None), best)
    more = torch.cat([masks, masks, torch.zeros(3, 9, 11, dtype=torch.bool)])
    assert torch.equal(best_iou(more, targets, None), best)
    assert torch.equal(best_iou(masks, targets.flip(0), None), best.flip(0))
    assert (best_iou(torch.cat([masks, boxes(9, 7)]), targets, None) >= best).all(), "more proposals find no less"


def test_one_proposal_may_find_two_targets():
    target = strip((0, 6), (0, 6), (1, 6))
    assert proposal_recall(strip((0, 6)), target, [0.8]) == {0.8: 1.0}


def test_targets_are_pooled_over_images_and_not_averaged_per_image():
    found, lost = strip((0, 10)), strip((0, 1))
    recall = proposal_recall([found, lost], [strip((0, 10)), strip((0, 10), (2, 9), (5, 10))], [0.5])
    assert recall == {0.5: 0.25}


def test_images_of_other_sizes_pool_too():
    masks, targets = zip(*((boxes(6, s, 5 + s, 7), boxes(s, s + 50, 5 + s, 7)) for s in range(4)), strict=True)
    best = [value for m, t in zip(masks, targets, strict=True) for value in slow_best(m, t, 4)]
    assert len(best) == 6
    assert proposal_recall(masks, targets, GRID, 4) == {t: sum(b >= t for b in best) / 6 for t in GRID}


def test_no_targets_is_nan_and_no_proposals_is_zero():
    masks, none = strip((0, 5)), torch.zeros(0, 1, 10, dtype=torch.bool)
    assert all(math.isnan(value) for value in proposal_recall(masks, none).values())
    assert all(math.isnan(value) for value in proposal_recall([], []).values())
    assert proposal_recall(none, masks) == dict.fromkeys(THRESHOLDS, 0.0)
    assert proposal_recall([none, masks, masks], [masks, masks, none], [0.5]) == {0.5: 0.5}
    assert best_iou(none, none).shape == (0,) and best_iou(none.float(), masks).dtype == torch.float64


def test_empty_masks_find_nothing_and_are_not_found():
    masks = strip((0, 0), (0, 4))
    assert mask_iou(masks, masks).tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert proposal_recall(masks[:1], masks[:1], [0.5]) == {0.5: 0.0}


@pytest.mark.parametrize("shape", [(2, 9, 10), (2, 11, 9), (9, 11), (1, 2, 9, 11)])
def test_other_sizes_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"got proposals and targets of shapes .*, expected \(N, H, W\)") as error:
        best_iou(boxes(2), torch.zeros(shape))
    assert "(2, 9, 11)" in str(error.value) and str(shape) in str(error.value)
    with pytest.raises(ValueError, match="proposals and targets"):
        proposal_recall(torch.zeros(shape), boxes(2))


def test_lists_that_do_not_fit_and_an_empty_budget_are_refused():
    with pytest.raises(ValueError, match="shorter|longer"):
        proposal_recall([boxes(2), boxes(2)], [boxes(2)])
    for budget in (0, -1):
        with pytest.raises(ValueError, match=f"got budget={budget}, expected at least one"):
            best_iou(boxes(2), boxes(2), budget)
