"""How a prompt's predictions are matched to its targets: against all assignments, one by one; order, empty cases."""

import itertools
import math

import pytest
import torch

from ovs_lite.matching import best_of_k, many_to_many, one_to_one

SIZES = [(1, 1, 1), (3, 4, 5), (5, 2, 4), (2, 3, 3), (4, 1, 6)]  # P, K, M


def example(size, seed=0, share=0.5):
    """Costs, IoUs and which targets a prompt has."""
    prompts, predictions, targets = size
    generator = torch.Generator().manual_seed(seed)
    cost = torch.randn(prompts, predictions, targets, generator=generator, dtype=torch.float64)
    iou = torch.rand(prompts, predictions, targets, generator=generator, dtype=torch.float64)
    return cost, iou, torch.rand(prompts, targets, generator=generator) < share


def lowest(cost, own):
    """The pairs (prediction, target) of least total cost, by trying all assignments of a prompt."""
    count = min(len(cost), len(own))
    best, pairs = math.inf, set()
    for chosen in itertools.combinations(own, count):
        for predictions in itertools.permutations(range(len(cost)), count):
            total = sum(float(cost[k, j]) for k, j in zip(predictions, chosen, strict=True))
            if total < best:
                best, pairs = total, set(zip(predictions, chosen, strict=True))
    return pairs


def as_pairs(matched):
    return {tuple(pair) for pair in matched.nonzero().tolist()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_one_to_one_is_the_cheapest_assignment_of_each_prompt(size, seed):
    cost, _, inside = example(size, seed)
    found = one_to_one(cost, inside)
    assert found.dtype == torch.bool and found.shape == cost.shape
    for prompt, targets in enumerate(inside):
        own = targets.nonzero()[:, 0].tolist()
        assert as_pairs(found[prompt]) == lowest(cost[prompt], own)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("positive", [0.0, 0.6, 2.0])
def test_many_to_many_adds_what_already_finds_a_target_of_the_prompt(size, positive):
    cost, iou, inside = example(size, seed=7)
    found, expected = many_to_many(cost, iou, inside, positive), one_to_one(cost, inside).clone()
    for p, k, j in itertools.product(*map(range, size)):
        if inside[p, j] and iou[p, k, j] >= positive:
            expected[p, k, j] = True
    assert torch.equal(found, expected)
    assert positive < 2 or torch.equal(found, one_to_one(cost, inside))


def test_every_target_is_matched_while_there_are_enough_predictions():
    cost, iou, inside = example((20, 4, 4), share=0.7)
    found = many_to_many(cost, iou, inside)
    assert torch.equal(found.any(1), inside)
    more = example((20, 2, 5), share=1.0)
    assert (many_to_many(*more, positive=2.0).sum((1, 2)) == 2).all()


@pytest.mark.parametrize("size", SIZES)
def test_best_of_k_is_the_cheapest_for_the_wanted_target_alone(size):
    cost, _, _ = example(size)
    wanted = torch.arange(size[0]) % size[2]
    wanted[0] = -1
    expected = {(p, int(cost[p, :, j].argmin()), int(j)) for p, j in enumerate(wanted) if j >= 0}
    assert as_pairs(best_of_k(cost, wanted)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_prompts_predictions_and_targets_does_not_matter(seed):
    cost, iou, inside = example((5, 3, 4), seed)
    generator = torch.Generator().manual_seed(seed)
    p, k, j = (torch.randperm(size, generator=generator) for size in (5, 3, 4))
    moved = many_to_many(cost[p][:, k][:, :, j], iou[p][:, k][:, :, j], inside[p][:, j], 0.6)
    assert torch.equal(moved, many_to_many(cost, iou, inside, 0.6)[p][:, k][:, :, j])


@pytest.mark.parametrize("size", [(0, 3, 2), (3, 2, 0), (0, 2, 0)])
def test_no_prompts_or_no_targets_give_no_pairs(size):
    cost, iou, inside = example(size)
    for found in (many_to_many(cost, iou, inside), best_of_k(cost, torch.full((size[0],), -1))):
        assert found.shape == size and not found.any()


def test_prompts_that_point_at_nothing_are_not_matched():
    cost, iou, inside = example((6, 3, 4))
    inside[::2] = False
    found = many_to_many(cost, iou, inside, 0.0)
    assert not found[::2].any() and found[1::2].any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_refused(value):
    cost, _, inside = example((3, 2, 2))
    cost[1, 0, 1] = value
    with pytest.raises(ValueError, match="NaN or infinity; did the training diverge"):
        one_to_one(cost, inside)
    with pytest.raises(ValueError, match=r"expected \(P, K, M\) and \(P, M\)"):
        one_to_one(cost, inside[:2])
