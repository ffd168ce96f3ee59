"""Masks to entities against all assignments, scales one by one and together, a threshold; empty images."""

import itertools

import pytest
import torch

from ovs_lite.matching import match_masks_to_entities

SIZES = [(1, 1), (2, 5), (5, 2), (4, 4), (1, 6), (6, 1)]


def costs(n, e, scales=2, seed=0):
    """Negative cosines, one matrix per scale."""
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(n, e, generator=generator, dtype=torch.float64) - 1 for _ in range(scales)]


def slow_pairs(costs_per_scale, threshold=None):
    """The best of all one-to-one assignments by the mean cost, then those at the threshold or above."""
    (n, e), scales = costs_per_scale[0].shape, len(costs_per_scale)
    mean = [[sum(float(cost[i, j]) for cost in costs_per_scale) / scales for j in range(e)] for i in range(n)]
    if n <= e:
        choices = [list(enumerate(chosen)) for chosen in itertools.permutations(range(e), n)]
    else:
        choices = [[(i, j) for j, i in enumerate(chosen)] for chosen in itertools.permutations(range(n), e)]
    best = min(choices, key=lambda pairs: sum(mean[i][j] for i, j in pairs))
    return {(i, j) for i, j in best if threshold is None or -mean[i][j] >= threshold}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threshold", [None, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_best_of_all_assignments_of_the_mean_cost(size, threshold, seed):
    given = costs(*size, scales=1 + seed, seed=seed)
    rows, cols = match_masks_to_entities(given, threshold)
    assert set(zip(rows.tolist(), cols.tolist(), strict=True)) == slow_pairs(given, threshold)
    assert rows.dtype == cols.dtype == torch.int64 and rows.tolist() == sorted(rows.tolist())
    assert len(set(cols.tolist())) == len(cols) == len(rows) <= min(size)


def test_scales_are_averaged_before_the_matching_and_not_each_matched():
    first, second = torch.tensor([[-0.9, -0.8], [-0.8, 0.0]]), torch.tensor([[-0.9, -0.1], [-0.1, -0.9]])
    assert match_masks_to_entities([first])[1].tolist() == [1, 0]
    assert match_masks_to_entities([second])[1].tolist() == [0, 1]
    assert match_masks_to_entities([first, second])[1].tolist() == [0, 1]


def test_a_pair_below_the_threshold_frees_nothing_for_others():
    cost = torch.tensor([[-0.5, -0.4], [-0.45, -0.1]])  # 0.4 + 0.45 beats 0.5 + 0.1
    rows, cols = match_masks_to_entities([cost], 0.42)
    assert (rows.tolist(), cols.tolist()) == ([1], [0]), "mask 0 does not get entity 0, which it fits best"
    assert match_masks_to_entities([cost], 0.45 - 1e-6)[0].tolist() == [1]
    assert match_masks_to_entities([cost], 0.451)[0].tolist() == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_the_order_of_masks_entities_and_scales_does_not_matter(seed, threshold):
    given, generator = costs(5, 4, 3, seed), torch.Generator().manual_seed(seed)
    masks, entities = torch.randperm(5, generator=generator), torch.randperm(4, generator=generator)
    rows, cols = match_masks_to_entities([cost[masks][:, entities] for cost in reversed(given)], threshold)
    plain = zip(*(found.tolist() for found in match_masks_to_entities(given, threshold)), strict=True)
    assert set(zip(masks[rows].tolist(), entities[cols].tolist(), strict=True)) == set(plain)


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0)])
def test_nothing_matches_nothing(size):
    rows, cols = match_masks_to_entities([torch.zeros(size), torch.zeros(size)], 0.1)
    assert rows.shape == cols.shape == (0,) and rows.dtype == cols.dtype == torch.int64


def test_half_precision_and_gradients_are_left_alone():
    given = [cost.to(torch.bfloat16).requires_grad_() for cost in costs(4, 3)]
    rows, cols = match_masks_to_entities(given)
    assert set(zip(rows.tolist(), cols.tolist(), strict=True)) == slow_pairs([cost.detach().float() for cost in given])


@pytest.mark.parametrize(
    "given, threshold, message",
    [
        ([], None, "got costs of shapes .*at least one scale"),
        ([torch.zeros(2, 3), torch.zeros(3, 2)], None, r"got costs of shapes \[\(2, 3\), \(3, 2\)\]"),
        ([torch.zeros(3)], None, r"expected one \(N, E\)"),
        ([torch.full((2, 2), float("nan"))], None, "NaN or infinity"),
        ([torch.zeros(2, 2)], float("nan"), "got threshold=nan"),
    ],
)
def test_what_cannot_be_matched_is_refused(given, threshold, message):
    with pytest.raises(ValueError, match=message):
        match_masks_to_entities(given, threshold)
