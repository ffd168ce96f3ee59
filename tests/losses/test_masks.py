"""Mask losses against slow oracles; who gets a gradient, shares of a batch, precision, images without masks."""

import re

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from kit.oracles.masks import of_matched_pairs, slow_dice, slow_focal
from ovs_lite.losses.masks import best_match_dice_loss, dice_loss, focal_loss
from ovs_lite.matching import pairwise_dice, pairwise_focal


def slow_best_match(probs, target_masks):
    """OpenSeg Eq. 1, image by image, target by target."""
    per_image = []
    for proposals, targets in zip(probs, target_masks, strict=True):
        lost = []
        for target in targets:
            best = 0.0
            for proposal in proposals:
                best = max(best, slow_dice(proposal.flatten().tolist(), target.flatten().tolist()))
            lost.append(1 - best)
        per_image += [sum(lost) / len(lost)] if lost else []
    return sum(per_image) / len(per_image) if per_image else 0.0


def picture(counts, n=5, size=(4, 3), seed=0):
    """Proposals (B, N, H, W) and, of each image, as many soft targets as `counts` says; float64."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(len(counts), n, *size, generator=generator, dtype=torch.float64)
    return probs, [torch.rand(m, *size, generator=generator, dtype=torch.float64) for m in counts]


def pairs(m=4, p=6, seed=0):
    """Logits and soft targets of matched pairs, (M, P) float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(m, p, generator=generator, dtype=torch.float64)
    return logits, torch.rand(m, p, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("counts", [(1,), (3, 1), (7, 2, 4), (2, 0, 3), (0, 1)])
@pytest.mark.parametrize("n, size", [(1, (4, 3)), (5, (3, 5)), (5, (1, 1))])
def test_best_match_equals_the_slow_oracle(counts, n, size):
    probs, targets = picture(counts, n, size)
    for wanted in (targets, [t > 0.6 for t in targets]):
        found = best_match_dice_loss(probs, wanted)
        assert found.shape == () and found.item() == pytest.approx(slow_best_match(probs, wanted), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_does_not_matter_and_an_image_alone_costs_what_it_costs_in_a_batch(seed):
    probs, targets = picture((3, 1, 4), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    expected = best_match_dice_loss(probs, targets)
    shuffled = [t[torch.randperm(len(t), generator=generator)] for t in targets]
    found = best_match_dice_loss(probs[:, torch.randperm(5, generator=generator)], shuffled)
    torch.testing.assert_close(found, expected)
    alone = [best_match_dice_loss(probs[b : b + 1], targets[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(torch.stack(alone).mean(), expected)


def test_gradients_are_those_of_the_formulas():
    probs, targets = picture((2, 0, 6))
    assert torch.autograd.gradcheck(lambda x: best_match_dice_loss(x, targets), probs.requires_grad_())
    logits, wanted = pairs()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, wanted), logits)
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, wanted, smooth=0.0, count=3.0), logits)
    for alpha, gamma in ((0.25, 2.0), (-1.0, 0.0), (0.5, 0.5)):
        assert torch.autograd.gradcheck(lambda x, a=alpha, g=gamma: focal_loss(x, wanted, a, g), logits)


def test_several_targets_may_choose_one_proposal_and_the_others_get_no_gradient():
    targets = torch.zeros(3, 2, 4)
    targets[0, 0], targets[1, 0, :3], targets[2, 1] = 1, 1, 1
    probs = torch.full((1, 4, 2, 4), 0.1)
    probs[0, 1, 0], probs[0, 3, 1] = 0.8, 0.7
    probs.requires_grad_()
    assert pairwise_dice(probs[0].flatten(1), targets.flatten(1)).argmax(0).tolist() == [1, 1, 3]
    best_match_dice_loss(probs, [targets]).backward()
    assert (probs.grad[0, [0, 2]] == 0).all() and (probs.grad[0, [1, 3]] != 0).all()
    assert (probs.grad[0, 1, 0, :3] < 0).all(), "descent draws the proposal over its targets"
    assert (probs.grad[0, 1, 1] > 0).all() and (probs.grad[0, 3, 0] > 0).all(), "and off the rest"


def test_every_target_counts_once_also_when_it_stands_there_twice():
    probs, targets = picture((3,))
    once = best_match_dice_loss(probs, targets)
    torch.testing.assert_close(best_match_dice_loss(probs, [targets[0].repeat(2, 1, 1)]), once)
    same = probs[:, :1].expand(-1, 4, -1, -1).clone().requires_grad_()
    best_match_dice_loss(same, targets).backward()
    assert (same.grad.flatten(2) != 0).any(2).sum() == 1, "one of equal proposals is pulled, not all"


def test_found_masks_cost_nothing_and_an_empty_target_cannot_be_found():
    targets = torch.eye(4).view(4, 2, 2)
    assert best_match_dice_loss(targets[None].flip(1), [targets.bool()]) == 0
    for probs in (torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 0.4)):
        probs.requires_grad_()
        loss = best_match_dice_loss(probs, [torch.zeros(1, 2, 2)])
        (65536 * loss).backward()  # the first scale of mixed precision
        assert loss == 1 and (probs.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [None, 2.0])
def test_images_without_targets_have_loss_0_with_gradient_0(dtype, count):
    probs = torch.full((2, 3, 160, 160), 0.9, dtype=dtype, requires_grad=True)  # sums to more than float16 holds
    loss = best_match_dice_loss(probs, [torch.zeros(0, 160, 160)] * 2, count)
    loss.backward()
    assert loss == 0 and loss.dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert probs.grad.dtype == dtype and (probs.grad == 0).all()


def test_images_without_targets_are_not_counted():
    probs, targets = picture((2, 0, 3))
    probs.requires_grad_()
    loss = best_match_dice_loss(probs, targets)
    loss.backward()
    torch.testing.assert_close(loss, best_match_dice_loss(probs[[0, 2]], targets[::2]))
    torch.testing.assert_close(loss, best_match_dice_loss(probs, targets, count=2))
    torch.testing.assert_close(loss / 2, best_match_dice_loss(probs, targets, count=4))
    assert (probs.grad[1] == 0).all() and (probs.grad[0] != 0).any() and (probs.grad[2] != 0).any()


def test_two_processes_with_half_the_count_have_the_gradient_of_one():
    probs, targets = picture((2, 0, 3, 0, 0, 1))  # three images with targets: two in the first half
    whole = probs.clone().requires_grad_()
    best_match_dice_loss(whole, targets).backward()
    halves = probs.clone().requires_grad_()
    for half in (slice(0, 3), slice(3, 6)):
        (best_match_dice_loss(halves[half], targets[half], count=3 / 2) / 2).backward()
    torch.testing.assert_close(halves.grad, whole.grad)


@pytest.mark.parametrize("loss", [dice_loss, focal_loss])
def test_pairs_in_two_processes_have_the_gradient_of_one(loss):
    logits, targets = pairs(5)
    whole, halves = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss(whole, targets).backward()
    for half in (slice(0, 2), slice(2, 5)):
        (loss(halves[half], targets[half], count=5 / 2) / 2).backward()
    torch.testing.assert_close(halves.grad, whole.grad)


@pytest.mark.parametrize("m, p", [(1, 1), (1, 9), (4, 1), (5, 7)])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_loss_equals_the_slow_oracle(m, p, smooth):
    logits, targets = pairs(m, p)
    expected = 1 - of_matched_pairs(slow_dice, logits.sigmoid(), targets, smooth)
    assert float(dice_loss(logits, targets, smooth)) == pytest.approx(expected)


@pytest.mark.parametrize("m, p", [(1, 1), (4, 1), (5, 7)])
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.6, 0.0), (0.5, 3.0)])
def test_focal_loss_equals_the_slow_oracle_and_those_of_torch(m, p, alpha, gamma):
    logits, soft = pairs(m, p)
    targets = (soft > 0.5).double()
    found = focal_loss(logits, targets > 0, alpha, gamma)
    assert float(found) == pytest.approx(of_matched_pairs(slow_focal, logits, targets, alpha, gamma))
    torch.testing.assert_close(found, sigmoid_focal_loss(logits, targets, alpha, gamma, reduction="mean"))
    unweighted = focal_loss(logits, soft, alpha=-1, gamma=0)
    torch.testing.assert_close(unweighted, F.binary_cross_entropy_with_logits(logits, soft))


@pytest.mark.parametrize("seed", range(3))
def test_matched_pairs_cost_what_the_matrices_say_in_any_order(seed):
    logits, targets = pairs(5, seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    dice, focal = pairwise_dice(logits.sigmoid(), targets, smooth=1.0), pairwise_focal(logits, targets)
    torch.testing.assert_close(dice_loss(logits[order], targets[order]), 1 - dice.diagonal().mean())
    torch.testing.assert_close(focal_loss(logits[order], targets[order]), focal.diagonal().mean())


@pytest.mark.parametrize("loss", [dice_loss, focal_loss])
def test_no_pairs_cost_nothing_with_gradient_0(loss):
    logits = torch.randn(3, 7, requires_grad=True)
    found = loss(logits[:0], torch.zeros(0, 7))
    found.backward()
    assert found == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_beyond_half_precision_are_finite(dtype):
    """2 * 70,000 pixels are more than float16's 65,504."""
    logits, full = torch.full((1, 70_000), 30.0, dtype=dtype, requires_grad=True), torch.ones(1, 70_000)
    terms = dice_loss(logits, full), focal_loss(logits, 1 - full, alpha=-1)
    terms += (best_match_dice_loss(logits.sigmoid().view(1, 1, 250, 280), [full.view(1, 250, 280)]),)
    sum(terms).backward()
    assert [term.item() for term in terms] == pytest.approx([0, 30, 0], abs=1e-6)
    assert all(term.dtype == torch.float32 for term in terms) and torch.isfinite(logits.grad).all()
    double, targets = pairs()
    assert dice_loss(double, targets).dtype == focal_loss(double, targets > 0.5).dtype == torch.float64


@pytest.mark.parametrize(
    "shape, targets, message",
    [
        ((2, 3, 4), [(1, 3, 4)] * 2, "masks (2, 3, 4) and 2 lists of targets, expected (B, N, H, W) with N >= 1"),
        ((2, 3, 4, 4), [(1, 4, 4)], "masks (2, 3, 4, 4) and 1 lists of targets, expected"),
        ((1, 0, 4, 4), [(1, 4, 4)], "masks (1, 0, 4, 4) and 1 lists of targets, expected"),
        ((2, 5, 4, 3), [(0, 9, 9), (1, 3, 4)], "targets 1 of shape (1, 3, 4) for predictions (2, 5, 4, 3), expected"),
        ((1, 5, 4, 3), [(2, 8, 6)], "expected (M, 4, 3): resize them to the prediction first"),
        ((1, 5, 4, 3), [(4, 3)], "targets 0 of shape (4, 3)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(shape, targets, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        best_match_dice_loss(torch.zeros(shape), [torch.zeros(size) for size in targets])
