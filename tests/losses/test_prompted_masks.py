"""Losses of prompts against loops over numbers; who is matched, what the unmatched feel, gradients, empty cases."""

import math

import pytest
import torch

from kit.oracles.masks import slow_dice
from ovs_lite.losses.masks import covered_share
from ovs_lite.losses.points import pixels_at_points, sample_points, uncertain_points
from ovs_lite.losses.prompted_masks import MATCHINGS, match_prompts, prompted_mask_losses, quality_loss

COUNTS = [(3, 2), (0, 4), (1, 0)]  # masks of the images of a batch


def example(counts=(3, 2), prompts=4, predictions=3, side=8, seed=0, dtype=torch.float64):
    """Logits (B, P, K, side, side), masks at that size, the targets of each prompt, and one of them that is wanted."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(len(counts), prompts, predictions, side, side, generator=generator, dtype=dtype)
    masks = [torch.rand(count, side, side, generator=generator) < 0.4 for count in counts]
    inside = [torch.rand(prompts, count, generator=generator) < 0.6 for count in counts]
    wanted = [[next(iter(row.nonzero().flatten().tolist()), -1) for row in own] for own in inside]
    return logits, masks, inside, torch.tensor(wanted)


def slow_bce(logits, target):
    """Mean over pixels of -t log p - (1 - t) log(1 - p)."""
    probs = [1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()]
    pairs = zip(probs, target.flatten().tolist(), strict=True)
    return sum(-math.log(p) if t else -math.log(1 - p) for p, t in pairs) / len(probs)


def slow_iou(logits, target):
    found, wanted = (logits > 0).flatten().tolist(), target.flatten().tolist()
    both = sum(a and b for a, b in zip(found, wanted, strict=True))
    either = sum(a or b for a, b in zip(found, wanted, strict=True))
    return both / either if either else 0.0


def cost(logits, target):
    return 2 * slow_bce(logits, target) + 1 - slow_dice(logits.sigmoid().flatten(), target.flatten(), 1.0)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("matching", MATCHINGS)
def test_every_prompt_of_one_target_takes_its_cheapest_prediction(counts, matching):
    logits, masks, inside, wanted = example(counts)
    inside = [torch.arange(own.shape[1]) == places[:, None] for own, places in zip(inside, wanted, strict=True)]
    expected = []
    for b, p in (wanted >= 0).nonzero().tolist():
        j = int(wanted[b, p])
        best = min(range(3), key=lambda k, b=b, p=p, j=j: cost(logits[b, p, k], masks[b][j]))
        expected.append([b, p, best, j])
    found = match_prompts(logits, masks, inside, wanted, matching, positive=2.0)
    assert found.pairs.tolist() == expected and expected


@pytest.mark.parametrize("counts", COUNTS)
def test_quality_is_the_best_iou_with_a_target_of_the_prompt(counts):
    logits, masks, inside, wanted = example(counts)
    found = match_prompts(logits, masks, inside, wanted)
    for b, own in enumerate(inside):
        for p, targets in enumerate(own):
            assert found.pointed[b, p] == bool(targets.any())
            for k in range(3):
                ious = [slow_iou(logits[b, p, k], masks[b][j]) for j in targets.nonzero().flatten().tolist()]
                assert float(found.quality[b, p, k]) == pytest.approx(max(ious, default=0.0), abs=1e-6)


def test_a_prediction_that_has_found_a_target_is_matched_to_it_whatever_the_others_cost():
    logits, masks, inside, wanted = example((2,), prompts=1)
    inside[0][:] = torch.tensor([[True, False]])
    logits[0, 0, 1:] = torch.where(masks[0][0], 9.0, -9.0).double()
    pairs = match_prompts(logits, masks, inside, wanted).pairs.tolist()
    assert pairs == [[0, 0, 1, 0], [0, 0, 2, 0]]
    assert len(match_prompts(logits, masks, inside, wanted, "one-to-one").pairs) == 1
    assert len(match_prompts(logits, masks, inside, wanted, positive=1.5).pairs) == 1


def test_a_mask_smaller_than_a_pixel_of_the_predictions_still_has_an_iou():
    logits, masks = torch.full((1, 1, 1, 4, 4), -5.0), [torch.zeros(1, 16, 16, dtype=torch.bool)]
    masks[0][0, 5, 6] = True
    logits[0, 0, 0, 1, 1] = 5.0
    found = match_prompts(logits, masks, [torch.ones(1, 1, dtype=torch.bool)], torch.zeros(1, 1, dtype=torch.int64))
    assert found.quality.item() == 1 and found.pairs.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("counts", COUNTS)
def test_the_terms_equal_the_slow_sums_over_pairs(counts):
    logits, masks, inside, wanted = example(counts)
    pairs = match_prompts(logits, masks, inside, wanted).pairs
    found = prompted_mask_losses(logits, masks, pairs, count=5.0)
    bce = sum(slow_bce(logits[b, p, k], masks[b][j]) for b, p, k, j in pairs.tolist())
    dice = sum(
        1 - slow_dice(logits[b, p, k].sigmoid().flatten(), masks[b][j].flatten(), 1.0) for b, p, k, j in pairs.tolist()
    )
    assert len(pairs) > 0
    assert float(found["bce"]) == pytest.approx(bce / 5) and float(found["dice"]) == pytest.approx(float(dice) / 5)
    default = prompted_mask_losses(logits, masks, pairs)
    assert float(default["bce"]) == pytest.approx(bce / len(pairs))


def test_the_sampled_terms_are_those_of_the_points_that_were_drawn():
    logits, _, inside, _ = example((2, 1), prompts=2, dtype=torch.float32)
    masks, pairs = [torch.rand(count, 20, 12) < 0.5 for count in (2, 1)], torch.tensor([[0, 1, 2, 1], [1, 0, 0, 0]])
    found = prompted_mask_losses(logits, masks, pairs, None, 9, torch.Generator().manual_seed(5))
    chosen = torch.stack([logits[0, 1, 2], logits[1, 0, 0]])
    points = uncertain_points(chosen, 9, generator=torch.Generator().manual_seed(5))
    seen, bce = sample_points(chosen, points), 0.0
    for row, mask in enumerate((masks[0][1], masks[1][0])):
        target = torch.tensor([mask[int(y * 20), int(x * 12)] for x, y in points[row].tolist()])
        bce += slow_bce(seen[row], target) / 2
    assert float(found["bce"]) == pytest.approx(bce, rel=1e-5)


def test_points_are_drawn_with_the_generator():
    logits, masks, inside, wanted = example()
    pairs = match_prompts(logits, masks, inside, wanted).pairs
    draws = [
        prompted_mask_losses(logits, masks, pairs, None, 9, torch.Generator().manual_seed(seed))["bce"].item()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_unmatched_predictions_get_no_gradient():
    logits, masks, inside, wanted = example()
    logits.requires_grad_()
    matches = match_prompts(logits, masks, inside, wanted)
    for points in (None, 20):
        terms = prompted_mask_losses(logits, masks, matches.pairs, None, points)
        (gradient,) = torch.autograd.grad(sum(terms.values()), logits)
        felt = gradient.abs().amax((3, 4)) > 0
        assert torch.equal(felt, matches.matched) and not felt.all() and felt.any()


def test_gradients_are_those_of_the_formulas():
    logits, masks, inside, wanted = example((2,), prompts=2, predictions=2, side=3)
    pairs = match_prompts(logits, masks, inside, wanted).pairs
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(prompted_mask_losses(x, masks, pairs).values()), logits)
    quality, chosen = torch.rand(2, 3, 2, dtype=torch.float64), torch.rand(2, 3, 2) < 0.6
    given = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: quality_loss(x, quality, chosen, 4.0), given)


def test_quality_is_the_squared_error_of_what_is_chosen():
    given, wanted = torch.randn(2, 3, 2), torch.rand(2, 3, 2)
    chosen = torch.zeros(2, 3, 2, dtype=torch.bool)
    chosen[0, 1, 1] = chosen[1, 2, 0] = True
    expected = [(1 / (1 + math.exp(-given[at])) - wanted[at]) ** 2 for at in ((0, 1, 1), (1, 2, 0))]
    assert float(quality_loss(given, wanted, chosen)) == pytest.approx(float(sum(expected)) / 2)
    assert float(quality_loss(given, wanted, chosen, 8.0)) == pytest.approx(float(sum(expected)) / 8)


@pytest.mark.parametrize("counts, prompts", [((0, 0), 4), ((2, 1), 0)])
@pytest.mark.parametrize("points", [None, 7])
def test_nothing_to_match_is_zero_with_gradient_zero(counts, prompts, points):
    logits, masks, inside, _ = example(counts, prompts)
    logits.requires_grad_()
    wanted = torch.full((2, prompts), -1)
    for matching in MATCHINGS:
        matches = match_prompts(logits, masks, inside, wanted, matching)
        assert matches.pairs.shape == (0, 4) and not matches.matched.any() and not matches.pointed.any()
        found = prompted_mask_losses(logits, masks, matches.pairs, None, points)
        quality = quality_loss(logits[..., 0, 0], matches.quality, matches.matched)
        total = sum(found.values()) + quality
        assert total == 0
        (gradient,) = torch.autograd.grad(total, logits)
        assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_as_float32(dtype):
    logits, masks, inside, wanted = example(dtype=torch.float32)
    logits = logits.to(dtype)
    matches, wide = (match_prompts(x, masks, inside, wanted) for x in (logits, logits.float()))
    assert torch.equal(matches.pairs, wide.pairs)
    found, expected = (prompted_mask_losses(x, masks, wide.pairs) for x in (logits, logits.float()))
    assert found == expected and found["bce"].dtype == torch.float32


def test_an_image_alone_is_matched_as_in_a_batch():
    logits, masks, inside, wanted = example((3, 2))
    pairs = match_prompts(logits, masks, inside, wanted).pairs
    for b in range(2):
        alone = match_prompts(logits[b : b + 1], masks[b : b + 1], inside[b : b + 1], wanted[b : b + 1]).pairs
        assert alone[:, 1:].tolist() == pairs[pairs[:, 0] == b, 1:].tolist()


def test_shares_of_the_masks_may_be_given_instead():
    logits, _, inside, wanted = example()
    masks = [torch.rand(count, 32, 16) < 0.5 for count in (3, 2)]
    shares = [covered_share(some, (8, 8)) for some in masks]
    first, second = (match_prompts(logits, given, inside, wanted) for given in (masks, shares))
    assert torch.equal(first.pairs, second.pairs) and torch.equal(first.quality, second.quality)


def test_an_unknown_matching_is_refused():
    with pytest.raises(ValueError, match="got matching='all', expected one of many-to-many, one-to-one, best-of-k"):
        match_prompts(*example(), matching="all")


def test_the_pixel_at_a_point_is_the_one_that_holds_it():
    masks, chosen = torch.rand(3, 4, 5) < 0.5, torch.tensor([2, 0])
    points = torch.rand(2, 6, 2)
    points[0, 0] = torch.tensor([1.0, 0.0])  # the edge belongs to the last pixel
    found = pixels_at_points(masks, chosen, points)
    for r in range(2):
        for i in range(6):
            x, y = points[r, i].tolist()
            assert found[r, i] == masks[chosen[r], min(3, int(y * 4)), min(4, int(x * 5))]
