"""MaskFormer's loss: the matching against all permutations, its three terms against slow oracles and torch.

Matching reads targets at the predictions' size, by the nearest pixel; mask losses compare at the targets' size.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from kit.oracles.bilinear import slow_resize, slow_sample
from kit.oracles.masks import slow_dice, slow_focal
from ovs_lite.losses import set_prediction
from ovs_lite.losses.masks import dice_loss, focal_loss
from ovs_lite.losses.points import uncertain_points
from ovs_lite.losses.set_prediction import COSTS, class_loss, match_masks, matched_mask_losses

K = 3  # classes; column K is "no object"
MATCHES = [(torch.tensor([3, 1]), torch.tensor([0, 1])), (torch.tensor([2]), torch.tensor([0]))]


def slow_cost(class_row, mask, label, target, weights):
    """Cost of one proposal for one target, by loops over Python floats."""
    odds = [math.exp(float(x)) for x in class_row]
    logits, wanted = mask.flatten().tolist(), target.flatten().tolist()
    dice = slow_dice([1 / (1 + math.exp(-x)) for x in logits], wanted, smooth=1)
    return (
        weights["focal"] * slow_focal(logits, wanted, 0.25, 2)
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
def test_every_cost_counts_with_its_weight(monkeypatch, name):
    class_logits, mask_logits, _, targets = problem((3, 3, 3, 3), size=(1, 3), seed=2)
    labels = [torch.randperm(K, generator=torch.Generator().manual_seed(b)) for b in range(4)]  # no ties
    given = class_logits, mask_logits, labels, targets
    assert COSTS == {"class": 1.0, "focal": 20.0, "dice": 1.0}, "the released code's"
    weights = {key: 5.0 if key == name else 0.0 for key in COSTS}
    monkeypatch.setattr(set_prediction, "COSTS", weights)
    found = as_sets(match_masks(*given))
    assert found == [slow_match(*image, weights) for image in zip(*given, strict=True)]
    monkeypatch.setattr(set_prediction, "COSTS", {key: 1.0 - (key == name) for key in COSTS})
    assert found != as_sets(match_masks(*given))


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


def test_a_diverged_prediction_and_lists_of_another_length_are_refused():
    class_logits, mask_logits, labels, targets = problem((2,))
    with pytest.raises(ValueError, match="NaN or infinity; did the training diverge"):
        match_masks(class_logits * math.nan, mask_logits, labels, targets)
    with pytest.raises(ValueError, match=r"masks \(1, 4, 3, 5\) and 2 lists of targets, expected"):
        match_masks(class_logits, mask_logits, labels, targets * 2)


def nearest(target, height, width):
    """(h, w) of a target's pixels: of each cell the one at its top left, which is where the released code looks."""
    rows = [y * target.shape[0] // height for y in range(height)]
    columns = [x * target.shape[1] // width for x in range(width)]
    return torch.stack([torch.stack([target[y, x] for x in columns]) for y in rows])


def larger_targets(counts, size=(12, 10), n=4, dtype=torch.float64):
    """A problem whose targets are larger than the 3 x 5 predictions, soft or bool."""
    class_logits, mask_logits, labels, _ = problem(counts, n)
    generator = torch.Generator().manual_seed(9)
    targets = [torch.rand(m, *size, generator=generator, dtype=torch.float64) for m in counts]
    return class_logits, mask_logits, labels, [t > 0.6 for t in targets] if dtype == torch.bool else targets


@pytest.mark.parametrize("counts", [(2, 4, 1), (0, 3), (5, 0)])
@pytest.mark.parametrize("size", [(12, 20), (7, 11), (2, 3), (3, 5)])
def test_matching_reads_larger_and_smaller_targets_at_the_nearest_pixel(counts, size):
    class_logits, mask_logits, labels, targets = larger_targets(counts, size, dtype=torch.bool)
    found = as_sets(match_masks(class_logits, mask_logits, labels, targets))
    small = [torch.stack([nearest(one, 3, 5) for one in t]) if len(t) else t for t in targets]
    assert found == [slow_match(*image) for image in zip(class_logits, mask_logits, labels, small, strict=True)]


def test_matching_sees_the_nearest_pixel_only():
    """What lies between the pixels that are looked at changes no match, and what lies on them does."""
    class_logits = torch.zeros(1, 2, K + 1)
    mask_logits = torch.tensor([[[[5.0, -5.0]], [[-5.0, 5.0]]]])
    targets, labels = torch.zeros(1, 2, 4), [torch.tensor([0])]
    targets[0, 1, :] = targets[0, 0, 1] = targets[0, 0, 3] = 1  # neither (0, 0) nor (0, 2)
    for column, proposal in ((0, 0), (2, 1)):
        target = targets.clone()
        target[0, 0, column] = 1
        assert as_sets(match_masks(class_logits, mask_logits, labels, [target])) == [{(proposal, 0)}]


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


def matched_pairs(mask_logits, targets, matches):
    """(logits, target) of every matched pair, one after the other."""
    for masks, wanted, (rows, cols) in zip(mask_logits, targets, matches, strict=True):
        yield from ((masks[i], wanted[j]) for i, j in zip(rows.tolist(), cols.tolist(), strict=True))


def slow_mask_losses(pairs):
    """{"focal", "dice"} of (logits, target) pairs of equal size, means over the pairs."""
    weights = {name: {key: float(key == name) for key in COSTS} for name in ("focal", "dice")}
    nothing = torch.zeros(1)
    return {
        name: sum(slow_cost(nothing, torch.as_tensor(x), 0, torch.as_tensor(t), w) for x, t in pairs) / len(pairs)
        for name, w in weights.items()
    }


@pytest.mark.parametrize("size", [(6, 10), (12, 20), (7, 11), (2, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bool])
def test_mask_losses_compare_at_the_targets_size(size, dtype):
    given = larger_targets((2, 0, 3), size, dtype=dtype)
    matches = match_masks(*given)
    found = matched_mask_losses(given[1], given[3], matches)
    pairs = list(matched_pairs(given[1], given[3], matches))
    by_hand = [(slow_resize(logits.tolist(), *size), target.double()) for logits, target in pairs]
    assert {name: value.item() for name, value in found.items()} == pytest.approx(slow_mask_losses(by_hand))
    by_torch = [F.interpolate(x[None, None], size, mode="bilinear", align_corners=False)[0, 0] for x, _ in pairs]
    rows, wanted = torch.stack(by_torch).flatten(1), torch.stack([t for _, t in pairs]).flatten(1)
    torch.testing.assert_close(found, {"focal": focal_loss(rows, wanted), "dice": dice_loss(rows, wanted)})


def test_twice_the_size_takes_three_quarters_of_the_near_and_a_quarter_of_the_far_pixel():
    """By hand: 1 x 2 logits (a, b) become four columns a, 3a/4 + b/4, a/4 + 3b/4, b, in two equal rows."""
    a, b = 2.0, -1.0
    row = [a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b]
    target = torch.tensor([[[1.0, 1.0, 0.0, 0.0]] * 2])
    match = [(torch.tensor([0]), torch.tensor([0]))]
    found = matched_mask_losses(torch.tensor([[[[a, b]]]]), [target], match)
    p = [1 / (1 + math.exp(-x)) for x in row]
    dice = 1 - (2 * 2 * (p[0] + p[1]) + 1) / (2 * sum(p) + 4 + 1)
    focal = [0.25 * (1 - p[i]) ** 2 * -math.log(p[i]) for i in (0, 1)]
    focal += [0.75 * p[i] ** 2 * -math.log(1 - p[i]) for i in (2, 3)]
    assert found["dice"].item() == pytest.approx(dice) and found["focal"].item() == pytest.approx(sum(focal) / 4)


def test_a_thin_target_counts_although_matching_cannot_see_it():
    """At a quarter of the size a line between the pixels that are looked at is gone; the loss still asks for it."""
    target = torch.zeros(1, 8, 8)
    target[0, :, 5] = 1
    logits = torch.full((1, 1, 2, 2), -4.0, requires_grad=True)
    match = [(torch.tensor([0]), torch.tensor([0]))]
    assert nearest(target[0], 2, 2).sum() == 0
    losses = matched_mask_losses(logits, [target], match)
    losses["dice"].backward()
    assert losses["dice"] > 0.7 and (logits.grad[0, 0, :, 1] < logits.grad[0, 0, :, 0]).all()


@pytest.mark.parametrize("counts", [(2, 0, 5, 1), (0, 3)])
def test_only_the_matched_masks_are_resized(monkeypatch, counts):
    """Memory: M masks of H x W, not N of each image, and with points none."""
    given, resized = larger_targets(counts, n=9), []
    matches = match_masks(*given)
    original = F.interpolate
    monkeypatch.setattr(
        set_prediction.F, "interpolate", lambda x, *a, **k: resized.append(tuple(x.shape)) or original(x, *a, **k)
    )
    matched_mask_losses(given[1], given[3], matches)
    assert resized == [(sum(counts), 1, 3, 5)]
    matched_mask_losses(given[1], given[3], matches, num_points=4)
    assert len(resized) == 1


def test_gradients_of_resized_logits_are_those_of_the_formulas():
    _, mask_logits, _, targets = larger_targets((2, 1), (4, 7))
    for name in ("focal", "dice"):
        loss = lambda x, n=name: matched_mask_losses(x, targets, MATCHES)[n]  # noqa: E731
        inputs = mask_logits.clone().requires_grad_()
        assert torch.autograd.gradcheck(loss, inputs)
        loss(inputs).backward()
        touched = inputs.grad.flatten(2).ne(0).any(2).nonzero().tolist()
        assert touched == [[0, 1], [0, 3], [1, 2]], "the matched proposals of MATCHES"


@pytest.mark.parametrize("num_points", [None, 6])
def test_larger_images_without_targets_have_mask_losses_of_0_with_gradient_0(num_points):
    class_logits, mask_logits, labels, targets = larger_targets((0, 0))
    matches = match_masks(class_logits, mask_logits, labels, targets)
    found = matched_mask_losses(mask_logits.requires_grad_(), targets, matches, num_points=num_points)
    sum(found.values()).backward()
    assert all(value == 0 for value in found.values()) and (mask_logits.grad == 0).all()


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


def test_no_target_and_no_weight_for_no_object_is_nothing_to_learn():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    none = [torch.zeros(0, dtype=torch.long)] * 2
    for count in (None, 0.0):
        loss = class_loss(logits, none, list(zip(none, none, strict=True)), no_object=0.0, count=count)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0 and not gradient.any()


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
@pytest.mark.parametrize("size", [(3, 5), (12, 10)])
def test_points_are_compared_where_the_oracle_samples_them(dtype, size):
    """The uncertain points of each pair, drawn with the generator; logits and targets each at their own size."""
    _, mask_logits, _, targets = larger_targets((2, 1), size)
    mask_logits = mask_logits.to(dtype)
    found, again, other = (
        matched_mask_losses(mask_logits, targets, MATCHES, None, 40, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert found == again and found["focal"] != other["focal"] and found["dice"] != other["dice"]
    assert found["dice"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    chosen = mask_logits[[0, 0, 1], [3, 1, 2]]
    points = uncertain_points(chosen, 40, generator=torch.Generator().manual_seed(0)).tolist()
    pairs = []
    for number, (logits, target) in enumerate(matched_pairs(mask_logits, targets, MATCHES)):
        values = [[slow_sample(mask.tolist(), x, y) for x, y in points[number]] for mask in (logits, target)]
        pairs.append(tuple(torch.tensor(row, dtype=torch.float64) for row in values))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(slow_mask_losses(pairs), rel=1e-4)
