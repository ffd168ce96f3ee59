"""Several rankings in turn, against a loop that looks at one mask at a time."""

import numpy as np
import pytest
import torch

from ovs_lite.regions.ranking import inner_nms, take_turns


def masks(*numbers):
    """The bits of each number as a (2, 3) mask."""
    return np.array([[[number >> 3 * y + x & 1 for x in range(3)] for y in range(2)] for number in numbers], bool)


def slow_turns(rankings, budget):
    chosen, left = [], [list(ranking) for ranking in rankings]
    while any(left):
        for ranking in left:
            if ranking:
                number = ranking.pop(0)
                if number not in chosen and len(chosen) < budget:
                    chosen.append(number)
    return chosen


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("budget", [1, 4, 7, 100])
def test_turns_equal_the_slow_loop(seed, budget):
    draw = np.random.default_rng(seed)
    rankings = [draw.integers(0, 20, draw.integers(1, 9)).tolist() for _ in range(3)]
    found = take_turns([masks(*ranking) for ranking in rankings], budget)
    assert np.array_equal(found, masks(*slow_turns(rankings, budget)))


def test_a_duplicate_costs_its_ranking_the_turn_and_an_empty_ranking_is_skipped():
    first, second = masks(1, 2, 3), masks(1, 4)
    assert np.array_equal(take_turns([first, second, masks(1)[:0]], 9), masks(1, 2, 4, 3))
    assert np.array_equal(take_turns([second, first], 3), masks(1, 4, 2))


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_below_one_is_refused(budget):
    with pytest.raises(ValueError, match=f"got budget={budget}, expected at least 1"):
        take_turns([masks(1)], budget)


def slow_nms(masks, overlap, contained):
    """Mask by mask and pixel by pixel."""
    kept = []
    for index, mask in enumerate(masks.flatten(1).tolist()):
        drops = not any(mask)
        for better in kept:
            other = masks[better].flatten().tolist()
            common = sum(a and b for a, b in zip(mask, other, strict=True))
            union = sum(a or b for a, b in zip(mask, other, strict=True))
            drops |= common >= overlap * union or common >= contained * sum(mask)
        kept += [] if drops else [index]
    return kept


@pytest.mark.parametrize("overlap, contained", [(0.5, 0.7), (0.2, 0.9), (1.1, 0.5), (0.4, 1.1), (1.1, 1.1), (1.0, 1.0)])
@pytest.mark.parametrize("seed", range(4))
def test_inner_nms_equals_the_loops(overlap, contained, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(12, 3, 4, generator=generator) < torch.rand(12, 1, 1, generator=generator)
    masks[3], masks[7] = masks[1], False
    assert inner_nms(masks, overlap, contained).tolist() == slow_nms(masks, overlap, contained)


def test_inner_nms_drops_what_a_better_mask_contains_and_not_what_contains_it():
    whole, part = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    part[0, :3] = True
    assert inner_nms(torch.stack([whole, part])).tolist() == [0]
    assert inner_nms(torch.stack([part, whole])).tolist() == [0, 1]
    assert inner_nms(torch.zeros(0, 4, 4, dtype=torch.bool)).tolist() == []


def test_autocast_does_not_round_the_counts_of_pixels():
    """Of 1,001 pixels half of 2,002 is an IoU of 0.5 and duplicate; 8 bits would make 1,000 of it."""
    seen = torch.zeros(2, 1, 2002, dtype=torch.bool)
    seen[0], seen[1, :, :1001] = True, True
    with torch.autocast("cpu", torch.bfloat16):
        assert inner_nms(seen, contained=2).tolist() == [0]
