"""MaskFormer's loss: the matching against all permutations, its three terms against slow oracles and torch."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ovs_lite.losses.masks import dice_loss, focal_loss
from ovs_lite.losses.points import sample_points, uncertain_points
from ovs_lite.losses.set_prediction import COSTS, class_loss, match_masks, matched_mask_losses

K = 3  # classes; column K is "no object"
MATCHES = [(torch.tensor([3, 1]), torch.tensor([0, 1])), (torch.tensor([2]), torch.tensor([0]))]


def slow_cost(class_row, mask, label, target, weights):
    """Cost of one proposal for one target, by loops over Python floats."""
    odds = [math.exp(float(x)) for x in class_row]
    focal = overlap = sizes = 0.0
    for x, y in zip(mask.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        focal += y * 0.25 * (1 - p) ** 2 * -math.log(p) + (1 - y) * 0.75 * p**2 * -math.log(1 - p)
        overlap, sizes = overlap + p * y, sizes + p + y
    dice = (2 * overlap + 1) / (sizes + 1)
    return (
        weights["focal"] * focal / mask.numel()
        + weights["dice"] * (1 - dice)
        - weights["class"] * (odds[int(label)] / sum(odds))
    )


def slow_match(class_logits, masks, label, targets, weights=COSTS):
    """The cheapest set of (proposal, target) of one image, by trying all."""
    n, m = len(masks), len(targets)
    cost = [[slow_cost(class_logits[i], masks[i], label[j], targets[j], weights) for j in range(m)] for i in range(n)]
    if n >= m:
        choices = [list(zip(rows, range(m), strict=True)) for rows in itertools.permutations(range(n), m)]
    else:
        choices = [list(zip(range(n), cols, strict=True)) for cols in itertools.permutations(range(m), n)]
    return set(min(choices, key=lambda pairs: sum(cost[i][j] for i, j in pairs)))


def problem(counts, n=4, size=(3, 5), seed=0):
    """Class logits, mask logits, labels and soft target masks of a batch, float64."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(len(counts), n, K + 1, generator=generator, dtype=torch.float64)
    mask_logits = 2 * torch.randn(len(counts), n, *size, generator=generator, dtype=torch.float64)
    labels = [torch.randint(0, K, (m,), generator=generator) for m in counts]
    return class_logits, mask_logits, labels, [
        torch.rand(m, *size, generator=generator, dtype=torch.float64) for m in counts
    ]  # fmt: skip


def as_sets(matches):
    return [set(zip(rows.tolist(), cols.tolist(), strict=True)) for rows, cols in matches]


@pytest.mark.parametrize("counts, n", [((2, 4, 1), 4), ((0, 3), 4), ((5, 2), 3), ((1, 3), 1), ((0, 0), 2)])
@pytest.mark.parametrize("seed", range(3))
def test_no_matching_is_cheaper(counts, n, seed):
    given = problem(counts, n, seed=seed)
    found = match_masks(*given)
    assert as_sets(found) == [slow_match(*image) for image in zip(*given, strict=True)]
    assert [len(rows) for rows, _ in found] == [min(n, m) for m in counts]
    assert all(rows.dtype == cols.dtype == torch.int64 for rows, cols in found)


@pytest.mark.parametrize("name", COSTS)
def test_every_cost_counts_with_its_weight(name):
    class_logits, mask_logits, _, targets = problem((3, 3, 3, 3), size=(1, 3), seed=2)
    labels = [torch.randperm(K, generator=torch.Generator().manual_seed(b)) for b in range(4)]  # no ties
    given = class_logits, mask_logits, labels, targets
    weights = {key: 5.0 if key == name else 0.0 for key in COSTS}
    found = as_sets(match_masks(*given, weights))
    assert found == [slow_match(*image, weights) for image in zip(*given, strict=True)]
    assert found != as_sets(match_masks(*given, {key: 1.0 - (key == name) for key in COSTS}))
    assert COSTS == {"class": 1.0, "focal": 20.0, "dice": 1.0}, "the released code's"


@pytest.mark.parametrize("seed", range(5))
def test_an_image_alone_is_matched_as_in_a_batch_and_in_any_order(seed):
    given = problem((3, 0, 2), seed=seed)
    expected = as_sets(match_masks(*given))
    for b in range(3):
        assert as_sets(match_masks(*(part[b : b + 1] for part in given))) == expected[b : b + 1]
    class_logits, mask_logits, labels, targets = given
    generator = torch.Generator().manual_seed(seed)
    rows, cols = torch.randperm(4, generator=generator), torch.randperm(3, generator=generator)
    shuffled = class_logits[:1, rows], mask_logits[:1, rows], [labels[0][cols]], [targets[0][cols]]
    (found,) = match_masks(*shuffled)
    assert set(zip(rows[found[0]].tolist(), cols[found[1]].tolist(), strict=True)) == expected[0]


def test_equal_targets_get_different_proposals_and_every_precision_is_matched_alike():
    class_logits, mask_logits, labels, targets = problem((2, 1))
    targets[0][1], labels[0][1] = targets[0][0], labels[0][0]
    expected = match_masks(class_logits, mask_logits, labels, targets)
    assert len(set(expected[0][0].tolist())) == 2
    for dtype in (torch.float32, torch.float16):
        found = match_masks(class_logits.to(dtype), mask_logits.to(dtype).requires_grad_(), labels, targets)
        assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows, _ in expected]


def test_a_diverged_prediction_and_masks_of_another_size_are_refused():
    class_logits, mask_logits, labels, targets = problem((2,))
    with pytest.raises(ValueError, match="NaN or infinity; did the training diverge"):
        match_masks(class_logits * math.nan, mask_logits, labels, targets)
    with pytest.raises(ValueError, match=r"targets 0 of shape \(2, 5, 3\) .* resize them"):
        match_masks(class_logits, mask_logits, labels, [targets[0].mT])  # as many pixels, other pixels


def wanted_classes(class_logits, labels, matches):
    """(B N,) of the class that every proposal should have."""
    wanted = [[K] * class_logits.shape[1] for _ in labels]
    for b, (rows, cols) in enumerate(matches):
        for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
            wanted[b][row] = int(labels[b][col])
    return [label for row in wanted for label in row]


@pytest.mark.parametrize("counts", [(2, 4, 1), (0, 3), (6,), (0, 0)])
@pytest.mark.parametrize("no_object", [0.1, 1.0, 2.0])
def test_class_loss_equals_the_slow_oracle_and_torchs_weighted_mean(counts, no_object):
    class_logits, mask_logits, labels, targets = problem(counts)
    matches = match_masks(class_logits, mask_logits, labels, targets)
    wanted = wanted_classes(class_logits, labels, matches)
    above = below = 0.0
    for row, label in zip(class_logits.flatten(0, 1).tolist(), wanted, strict=True):
        weight = no_object if label == K else 1.0
        above += weight * (math.log(sum(math.exp(x) for x in row)) - row[label])
        below += weight
    found = class_loss(class_logits, labels, matches, no_object)
    assert found.dtype == torch.float64 and float(found) == pytest.approx(above / below)
    assert float(class_loss(class_logits, labels, matches, no_object, count=7.0)) == pytest.approx(above / 7)
    weights = torch.tensor([1.0] * K + [no_object], dtype=torch.float64)
    torch.testing.assert_close(found, F.cross_entropy(class_logits.flatten(0, 1), torch.tensor(wanted), weights))


@pytest.mark.parametrize("counts", [(2, 0, 5, 1), (0, 0), (1,), (9,)])
def test_mask_losses_are_means_over_the_matched_pairs(counts):
    given = problem(counts)
    matches = match_masks(*given)
    weights = [{key: float(key == name) for key in COSTS} for name in ("focal", "dice")]
    sums, pairs = [0.0, 0.0], 0
    for image, (rows, cols) in zip(zip(*given, strict=True), matches, strict=True):
        for i, j in zip(rows.tolist(), cols.tolist(), strict=True):
            costs = [slow_cost(image[0][i], image[1][i], image[2][j], image[3][j], w) for w in weights]
            sums, pairs = [a + b for a, b in zip(sums, costs, strict=True)], pairs + 1
    for count in (None, 7.0):
        found = matched_mask_losses(given[1], given[3], matches, count)
        expected = [total / (count or max(1, pairs)) for total in sums]
        assert list(found) == ["focal", "dice"] and [v.item() for v in found.values()] == pytest.approx(expected)


def terms(class_logits, mask_logits, labels, targets, matches, counts=(None, None), **points):
    found = matched_mask_losses(mask_logits, targets, matches, counts[0], **points)
    return class_loss(class_logits, labels, matches, 0.1, counts[1]) + 20 * found["focal"] + found["dice"]


def test_gradients_are_those_of_the_formulas():
    class_logits, mask_logits, labels, targets = problem((2, 0), n=3, size=(2, 2))
    matches = match_masks(class_logits, mask_logits, labels, targets)
    inputs = class_logits.requires_grad_(), mask_logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda c, m: terms(c, m, labels, targets, matches), inputs)


@pytest.mark.parametrize("num_points", [None, 6])
def test_unmatched_proposals_get_no_gradient_from_masks_but_are_no_object(num_points):
    class_logits, mask_logits, labels, targets = problem((2, 0))
    matches = match_masks(class_logits, mask_logits, labels, targets)
    inputs = class_logits.requires_grad_(), mask_logits.requires_grad_()
    terms(*inputs, labels, targets, matches, num_points=num_points).backward()
    touched = mask_logits.grad.flatten(2).ne(0).any(2).nonzero().tolist()
    assert touched == [[0, row] for row in matches[0][0].tolist()]
    free = torch.ones(2, 4, dtype=torch.bool)
    free[0, matches[0][0]] = False
    assert (class_logits.grad[free][:, K] < 0).all() and (class_logits.grad[free][:, :K] > 0).all()


@pytest.mark.parametrize("num_points", [None, 6])
def test_a_batch_without_targets_has_mask_losses_of_0_with_gradient_0(num_points):
    class_logits, mask_logits, labels, targets = problem((0, 0))
    matches = match_masks(class_logits, mask_logits, labels, targets)
    found = matched_mask_losses(mask_logits.requires_grad_(), targets, matches, num_points=num_points)
    sum(found.values()).backward()
    assert all(value == 0 for value in found.values()) and (mask_logits.grad == 0).all()


def test_two_processes_with_half_the_count_have_the_gradient_of_one():
    class_logits, mask_logits, labels, targets = problem((2, 0, 3, 1))
    matches = match_masks(class_logits, mask_logits, labels, targets)
    whole = class_logits.clone().requires_grad_(), mask_logits.clone().requires_grad_()
    terms(*whole, labels, targets, matches).backward()
    halves = class_logits.clone().requires_grad_(), mask_logits.clone().requires_grad_()
    counts = (6 / 2, (6 + 0.1 * (16 - 6)) / 2)  # 6 targets, 16 proposals
    for half in (slice(0, 1), slice(1, 4)):
        parts = [part[half] for part in (*halves, labels, targets, matches)]
        (terms(*parts, counts) / 2).backward()
    for one, two in zip(whole, halves, strict=True):
        torch.testing.assert_close(two.grad, one.grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_points_on_even_masks_cost_what_all_pixels_cost(dtype):
    _, mask_logits, _, targets = problem((2, 1), size=(1, 1))
    mask_logits = mask_logits.expand(-1, -1, 6, 8).to(dtype)
    targets = [t.expand(-1, 6, 8) for t in targets]
    everywhere = matched_mask_losses(mask_logits.double(), targets, MATCHES)
    for num_points in (None, 48):
        found = matched_mask_losses(mask_logits, targets, MATCHES, num_points=num_points)
        assert found["dice"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for name, value in found.items():
            assert value.item() == pytest.approx(everywhere[name].item(), rel=1e-5)


def test_points_are_the_uncertain_ones_of_each_pair_drawn_with_the_generator():
    _, mask_logits, _, targets = problem((2, 1))
    draws = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, second, third = (
        matched_mask_losses(mask_logits, targets, MATCHES, num_points=40, generator=draw) for draw in draws
    )
    assert first == second and first["focal"] != third["focal"] and first["dice"] != third["dice"]
    chosen, wanted = mask_logits[[0, 0, 1], [3, 1, 2]], torch.cat([targets[0], targets[1]])
    points = uncertain_points(chosen, 40, generator=torch.Generator().manual_seed(0))
    pairs = sample_points(chosen, points), sample_points(wanted, points)
    assert first == {"focal": focal_loss(*pairs), "dice": dice_loss(*pairs)}
