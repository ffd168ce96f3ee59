"""Pairwise costs against slow oracles, the assignment against all permutations; gradients, precision, empty cases."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from kit.oracles.masks import of_all_pairs, slow_dice, slow_focal
from ovs_lite.matching import costs, exact_iou, focal_terms, hungarian, pairwise_dice, pairwise_focal, pairwise_iou
from ovs_lite.tensors import at_least_float32

SIZES = [(1, 1, 1), (2, 5, 7), (5, 2, 7), (4, 4, 1), (3, 3, 30)]  # N, M, P


def lowest_total(cost):
    """The least sum of any one-to-one assignment, by trying all."""
    rows = cost.tolist() if cost.shape[0] <= cost.shape[1] else cost.T.tolist()
    choices = itertools.permutations(range(len(rows[0])), len(rows))
    return min(sum(row[c] for row, c in zip(rows, choice, strict=True)) for choice in choices)


def masks(n, m, p, seed=0):
    """Logits (N, P) and soft targets (M, P), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, p, generator=generator, dtype=torch.float64)
    return logits, torch.rand(m, p, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_equals_the_slow_oracle(size, smooth):
    logits, targets = masks(*size)
    for wanted in (targets, targets > 0.5):
        found = pairwise_dice(logits.sigmoid(), wanted, smooth)
        torch.testing.assert_close(found, of_all_pairs(slow_dice, logits.sigmoid(), wanted, smooth))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (-1.0, 0.0), (0.7, 0.5), (-1.0, 3.0)])
def test_focal_equals_the_slow_oracle(size, alpha, gamma):
    logits, targets = masks(*size)
    for wanted in (targets, targets > 0.5):
        found = pairwise_focal(logits, wanted, alpha, gamma)
        torch.testing.assert_close(found, of_all_pairs(slow_focal, logits, wanted, alpha, gamma))


def test_focal_without_its_weights_is_binary_cross_entropy():
    logits, targets = masks(4, 3, 11)
    found = pairwise_focal(logits, targets, alpha=-1, gamma=0)
    for n, m in itertools.product(range(4), range(3)):
        torch.testing.assert_close(found[n, m], F.binary_cross_entropy_with_logits(logits[n], targets[m]))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_masks_and_pixels_does_not_matter(seed):
    logits, targets = masks(5, 3, 8, seed)
    generator = torch.Generator().manual_seed(seed)
    rows, cols, pixels = (torch.randperm(size, generator=generator) for size in (5, 3, 8))
    shuffled = logits[rows][:, pixels], targets[cols][:, pixels]
    expected = pairwise_dice(logits.sigmoid(), targets)[rows][:, cols]
    torch.testing.assert_close(pairwise_dice(shuffled[0].sigmoid(), shuffled[1]), expected)
    torch.testing.assert_close(pairwise_dice(shuffled[1], shuffled[0].sigmoid()), expected.T)
    torch.testing.assert_close(pairwise_focal(*shuffled), pairwise_focal(logits, targets)[rows][:, cols])


def test_gradients_are_those_of_the_formulas():
    logits, targets = masks(3, 4, 5)
    logits.requires_grad_()
    for smooth in (0.0, 1.0):
        assert torch.autograd.gradcheck(lambda x, s=smooth: pairwise_dice(x.sigmoid(), targets, s), logits)
    for alpha, gamma in ((0.25, 2.0), (-1.0, 0.0), (0.5, 0.5)):
        assert torch.autograd.gradcheck(lambda x, a=alpha, g=gamma: pairwise_focal(x, targets, a, g), logits)


def test_dice_of_equal_disjoint_and_empty_masks():
    one = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    torch.testing.assert_close(pairwise_dice(one, one.bool()), torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    assert pairwise_dice(one, one, smooth=1.0).diagonal().tolist() == [1, 1, 1]
    assert pairwise_dice(one[1:2], one[[1, 1, 1]]).tolist() == [[1, 1, 1]], "duplicates are no special case"


@pytest.mark.parametrize("scale", [1.0, 65536.0])  # of the loss, as mixed precision scales it
def test_two_empty_masks_have_a_finite_gradient(scale):
    probs = torch.zeros(2, 9, requires_grad=True)
    (scale * pairwise_dice(probs, torch.zeros(1, 9)).sum()).backward()
    assert (probs.grad == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_pixels_have_finite_costs_and_gradients(gamma):
    logits = torch.tensor([[-1e4, -200.0, -20.0, 20.0, 200.0, 1e4]], requires_grad=True)
    cost = pairwise_focal(logits, torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]), gamma=gamma)
    cost.sum().backward()
    assert cost[0, 0] < 1e-6 and cost[0, 1] > 1000 and torch.isfinite(cost).all()
    assert torch.isfinite(logits.grad).all()


def test_focal_terms_fall_and_rise_with_the_logit():
    inside, outside = focal_terms(torch.linspace(-5, 5, 21), alpha=0.25, gamma=2.0)
    assert (inside.diff() < 0).all() and (outside.diff() > 0).all()
    torch.testing.assert_close(inside.flip(0) * 3, outside)  # (1 - alpha) / alpha


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_beyond_half_precision_are_finite(dtype):
    """2 * 70,000 pixels are more than float16's 65,504."""
    full, logits = torch.ones(2, 70_000, dtype=dtype), torch.full((2, 70_000), 30.0, dtype=dtype)
    dice, focal = pairwise_dice(full, full), pairwise_focal(logits, torch.zeros(1, 70_000), alpha=-1)
    assert dice.dtype == focal.dtype == torch.float32
    assert (dice == 1).all() and focal.flatten().tolist() == pytest.approx([30, 30])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_narrow_the_sums(dtype):
    logits, targets = (mask.float() for mask in masks(3, 4, 70_000))
    expected = pairwise_dice(logits.sigmoid(), targets), pairwise_focal(30 * logits, targets)
    with torch.autocast("cpu", dtype=dtype):
        found = pairwise_dice(logits.sigmoid(), targets), pairwise_focal(30 * logits, targets)
    torch.testing.assert_close(found, expected)


def test_wide_widens_only_what_is_narrow():
    kept = {dtype: at_least_float32(torch.ones(2, dtype=dtype)).dtype for dtype in (torch.float64, torch.float32)}
    assert all(before == after for before, after in kept.items())
    for dtype in (torch.float16, torch.bfloat16, torch.bool, torch.int64):
        assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == torch.float32
    double = torch.rand(2, 3, dtype=torch.float64)
    assert pairwise_dice(double, double > 0.5).dtype == pairwise_focal(double, double).dtype == torch.float64


@pytest.mark.parametrize("n, m", [(0, 0), (0, 3), (3, 0)])
def test_no_masks_on_one_side_give_an_empty_matrix_and_no_pairs(n, m):
    logits, targets = masks(n, m, 4)
    for cost in (pairwise_dice(logits.sigmoid(), targets), pairwise_focal(logits, targets)):
        assert cost.shape == (n, m)
        rows, cols = hungarian(cost)
        assert rows.shape == cols.shape == (0,) and rows.dtype == cols.dtype == torch.int64


@pytest.mark.parametrize("n, m", [(1, 1), (4, 4), (6, 3), (3, 6), (1, 5), (5, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_no_assignment_is_cheaper(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, m, generator=generator, dtype=torch.float64)
    for cost in (
        normal,
        normal.half(),
        normal.bfloat16(),
        torch.randint(0, 3, (n, m), generator=generator),
    ):  # the last has many ties
        rows, cols = hungarian(cost)
        assert rows.dtype == cols.dtype == torch.int64 and len(rows) == len(cols) == min(n, m)
        assert (rows.diff() > 0).all() and len(set(cols.tolist())) == len(cols)
        assert float(cost[rows, cols].double().sum()) == pytest.approx(lowest_total(cost.double()))


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_follows_the_order_and_no_shift_changes_it(seed):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    order, columns = torch.randperm(6, generator=generator), torch.randperm(4, generator=generator)
    expected = set(zip(*(x.tolist() for x in hungarian(cost)), strict=True))
    rows, cols = hungarian(cost[order][:, columns] + 7)
    assert set(zip(order[rows].tolist(), columns[cols].tolist(), strict=True)) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_refused(value):
    cost = torch.zeros(3, 2)
    cost[1, 1] = value
    with pytest.raises(ValueError, match=r"\(3, 2\) with NaN or infinity; did the training diverge\?"):
        hungarian(cost)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_a_cost_that_is_no_matrix_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(N, M\)") as error:
        hungarian(torch.zeros(shape))
    assert str(tuple(shape)) in str(error.value)


def test_a_batch_has_every_images_pairs():
    logits, targets = (torch.stack(some) for some in zip(*(masks(4, 3, 7, seed) for seed in range(2)), strict=True))
    for cost, given in (
        (pairwise_dice, logits.sigmoid()),
        (pairwise_focal, logits),
        (pairwise_iou, (logits > 0).double()),
    ):
        wanted = targets.round() if cost is pairwise_iou else targets
        alone = [cost(one, other) for one, other in zip(given, wanted, strict=True)]
        torch.testing.assert_close(cost(given, wanted), torch.stack(alone))


@pytest.mark.parametrize("most", [costs.EXACT, 40])  # counted in float32, and in float64
@pytest.mark.parametrize("autocast", [False, True])
def test_exact_iou_is_the_fraction_of_counted_pixels(most, autocast, monkeypatch):
    monkeypatch.setattr(costs, "EXACT", most)
    first, second = (torch.rand(n, 3001, generator=torch.Generator().manual_seed(n)) > 0.3 for n in (6, 4))
    first[2], second[1], second[2], second[3] = False, False, first[0], ~first[1]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = exact_iou(first, second)
    assert found.dtype == torch.float64 and found[2, 1] == 0 and found[0, 2] == 1 and found[1, 3] == 0
    for n, m in itertools.product(range(6), range(4)):
        both, one, other = (
            set(some.nonzero().flatten().tolist()) for some in (first[n] & second[m], first[n], second[m])
        )
        wanted = Fraction(len(both), max(1, len(one | other)))
        assert found[n, m].item() == wanted.numerator / wanted.denominator, "to the last bit"
    assert exact_iou(first[:0], second).shape == (0, 4) and exact_iou(first, second[:0]).shape == (6, 0)
