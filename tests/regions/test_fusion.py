"""From regions to a label map: against a loop over pixels, hard and soft, in chunks, and without regions."""

import numpy as np
import pytest
import torch

from ovs_lite.regions.fusion import label_map


def slow_label_map(masks, probs):
    count, height, width = masks.shape
    labels = torch.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            votes = [
                sum(float(probs[n, k]) * float(masks[n, y, x]) for n in range(count)) for k in range(probs.shape[1])
            ]
            if max(votes) > 0:
                labels[y, x] = int(np.argmax(votes))
    return labels


def boxes(count=5, height=14, width=15, soft=False):
    draw, masks = np.random.default_rng(3), np.zeros((count, height, width))
    for mask in masks:
        y, x = draw.integers(0, height - 4), draw.integers(0, width - 4)
        mask[y : y + draw.integers(3, 8), x : x + draw.integers(3, 8)] = 1
    masks = masks * draw.random(masks.shape) if soft else masks > 0
    return torch.from_numpy(masks)


@pytest.mark.parametrize("soft", [False, True])
def test_equals_a_loop_over_pixels_in_any_order_of_regions(soft):
    masks, probs = boxes(soft=soft), torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).double()
    probs[2] = 0
    expected = slow_label_map(masks, probs)
    assert (label_map(masks, probs) == expected).all() and (expected == -1).any() and len(expected.unique()) == 4
    order = torch.tensor([3, 0, 4, 1, 2])
    assert (label_map(masks[order], probs[order]) == expected).all()


def test_a_confident_region_is_outvoted_where_its_soft_mask_is_weak():
    masks = torch.tensor([[[0.9, 0.6, 0.1]], [[0.2, 0.5, 1.0]]])
    probs = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    assert label_map(masks, probs).tolist() == [[0, 0, 1]]
    assert label_map(masks > 0.5, probs).tolist() == [[0, 0, 1]]
    assert label_map(0.001 * masks, probs).tolist() == [[0, 0, 1]], "only 0 is no vote"


def test_no_regions_no_votes_and_ties():
    masks = torch.ones(2, 2, 3, dtype=torch.bool)
    assert (label_map(masks[:0], torch.zeros(0, 4)) == -1).all() and label_map(masks[:0], torch.zeros(0, 4)).shape == (
        2,
        3,
    )
    assert (label_map(masks, torch.zeros(2, 4)) == -1).all()
    assert (label_map(masks, torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])) == 1).all()


def test_chunks_of_pixels_change_nothing(monkeypatch):
    masks, probs = boxes(6, 48, 72), torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    whole = label_map(masks, probs)
    monkeypatch.setattr("ovs_lite.regions.fusion.PIXELS_AT_ONCE", 1000)
    assert (label_map(masks, probs) == whole).all()
