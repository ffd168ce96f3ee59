"""The confusion matrix against a slow loop over classes, torchmetrics, and its own invariances."""

import warnings

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ovs_lite.evaluation import ConfusionMatrix


def maps(seed: int, num_classes: int, shape=(3, 20, 31), ignore: float = 0.1):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, num_classes, shape)
    pred = np.where(rng.random(shape) < 0.6, target, rng.integers(0, num_classes, shape))
    target[rng.random(shape) < ignore] = 255
    return pred, target


def oracle(pred, target, num_classes, absent):
    """Loop over classes with Boolean masks: no counting trick shared with the package."""
    ious, accuracies = [], []
    labelled = target != 255
    for c in range(num_classes):
        p, t = (pred == c) & labelled, target == c
        if (p | t).any() if absent == "union" else t.any():
            ious.append((p & t).sum() / (p | t).sum())
        else:
            ious.append(np.nan)
        accuracies.append((p & t).sum() / t.sum() if t.any() else np.nan)
    right = (pred == target)[labelled].mean()
    return np.array(ious), right, np.nanmean(accuracies)


@pytest.mark.parametrize("absent", ["union", "target"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_loop(seed, absent):
    pred, target = maps(seed, 9)
    target[target == 4] = 3  # class 4 only predicted
    pred[pred == 7], target[target == 7] = 6, 6  # class 7 nowhere
    pred[0, :3] = -1
    scores = ConfusionMatrix(9, 255).update(pred, target).compute(absent=absent)
    iou, pixel_accuracy, mean_accuracy = oracle(pred, target, 9, absent)
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12)
    assert np.isnan(scores.iou[7]) and np.isnan(scores.iou[4]) == (absent == "target")
    assert scores.miou == pytest.approx(np.nanmean(iou), rel=1e-12)
    assert scores.pixel_accuracy == pytest.approx(pixel_accuracy, rel=1e-12)
    assert scores.mean_accuracy == pytest.approx(mean_accuracy, rel=1e-12)
    assert scores.classes_counted == (~np.isnan(iou)).sum()


def test_equals_torchmetrics():
    pred, target = (torch.from_numpy(labels) for labels in maps(11, 6))
    metric = MulticlassJaccardIndex(6, ignore_index=255, average=None)
    scores = ConfusionMatrix(6, 255).update(pred, target).compute()
    np.testing.assert_allclose(scores.iou, metric(pred, target).numpy(), rtol=1e-6)


def test_a_hand_made_case_tells_the_two_rules_apart():
    matrix = ConfusionMatrix(3).update(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]))
    union, target = matrix.compute("union"), matrix.compute("target")
    np.testing.assert_allclose(union.iou, [1, 0.5, 0])
    assert union.miou == pytest.approx(0.5) and union.classes_counted == 3
    assert target.miou == pytest.approx(0.75) and target.classes_counted == 2 and np.isnan(target.iou[2])


def test_parts_merge_to_the_whole():
    pred, target = maps(3, 5)
    whole = ConfusionMatrix(5).update(pred, target)
    merged = ConfusionMatrix(5)
    for one_pred, one_target in zip(pred, target, strict=True):
        merged.merge(ConfusionMatrix(5).update(one_pred, one_target))
    assert (merged.matrix == whole.matrix).all() and merged.ignored == whole.ignored > 0


def test_one_matrix_is_not_the_mean_over_images():
    pred, target = np.array([[0, 0], [0, 1]]), np.array([[0, 0], [1, 1]])
    per_image = np.mean([ConfusionMatrix(2).update(p, t).compute().miou for p, t in zip(pred, target, strict=True)])
    assert ConfusionMatrix(2).update(pred, target).compute().miou != pytest.approx(per_image)


def test_ignored_pixels_change_nothing():
    pred, target = maps(4, 5)
    plain = ConfusionMatrix(5).update(pred, target)
    more = ConfusionMatrix(5).update(pred, target).update(np.arange(-2, 8), np.full(10, 255))
    assert (more.matrix == plain.matrix).all() and more.ignored == plain.ignored + 10
    assert more.compute().miou == plain.compute().miou


def test_renaming_the_classes_permutes_the_scores():
    pred, target = maps(5, 6)
    order = np.random.default_rng(0).permutation(6)
    renamed_target = np.where(target == 255, 255, order[np.minimum(target, 5)])
    before = ConfusionMatrix(6).update(pred, target).compute()
    after = ConfusionMatrix(6).update(order[pred], renamed_target).compute()
    np.testing.assert_array_equal(after.iou[order], before.iou)
    assert after.pixel_accuracy == before.pixel_accuracy


@pytest.mark.parametrize("outside", [-1, -7, 3, 255, 100_000])
def test_a_prediction_that_is_no_class_is_a_miss_and_nobodys_false_positive(outside):
    matrix = ConfusionMatrix(3).update(np.array([0, outside, 1]), np.array([0, 0, 1]))
    scores = matrix.compute()
    np.testing.assert_allclose(scores.iou, [0.5, 1, np.nan])
    assert scores.pixel_accuracy == pytest.approx(2 / 3) and matrix.matrix[0, 3] == 1


@pytest.mark.parametrize("make", [np.uint8, np.int16, np.int32, np.int64, torch.uint8, torch.int64])
def test_every_integer_type_and_layout_counts_the_same(make):
    pred, target = maps(6, 4)
    expected = ConfusionMatrix(4).update(pred, target).matrix
    if isinstance(make, torch.dtype):
        given = [torch.from_numpy(labels).to(make).transpose(1, 2) for labels in (pred, target)]
    else:
        given = [labels.astype(make).transpose(0, 2, 1) for labels in (pred, target)]
    assert (ConfusionMatrix(4).update(*given).matrix == expected).all()


@pytest.mark.parametrize("empty", [np.zeros((0, 4), np.int64), np.full((2, 4), 255)])
def test_nothing_labelled_is_nan_and_says_so(empty):
    matrix = ConfusionMatrix(3).update(np.zeros_like(empty), empty)
    with pytest.warns(UserWarning, match="no labelled pixel"):
        scores = matrix.compute()
    assert np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_accuracy, *scores.iou]).all()
    assert scores.classes_counted == 0 and scores.ignored == empty.size


def test_labelled_pixels_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConfusionMatrix(9).update(*maps(7, 3)).compute()


def test_wrong_input_is_refused_and_counts_nothing():
    matrix = ConfusionMatrix(3, 255)
    with pytest.raises(ValueError, match="shape"):
        matrix.update(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(ValueError, match="argmax"):
        matrix.update(np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"\[-1, 3, 254\]"):
        matrix.update(np.zeros(5, int), np.array([0, 3, 254, -1, 255]))
    with pytest.raises(ValueError, match="union, target"):
        matrix.compute(absent="skip")
    with pytest.raises(ValueError, match="num_classes"):
        matrix.merge(ConfusionMatrix(4, 255))
    with pytest.raises(ValueError, match="one of the classes"):
        ConfusionMatrix(847, 255)
    with pytest.raises(ValueError, match="-1"):
        ConfusionMatrix(3, None).update(np.zeros(1, int), np.array([-1]))
    assert matrix.matrix.sum() == 0 and matrix.ignored == 0


@pytest.mark.parametrize("ignore", [3, 255, 258, 259, 65535, -1, None])
@pytest.mark.parametrize("stray", [-7, -2, 3, 4, 5, 254, 257, 65534, 10**12])
def test_a_stray_number_beside_any_ignored_one_is_refused_and_counts_nothing(ignore, stray):
    """The rows below the classes, near and far from the ignored value: none of them may swallow a stray."""
    matrix = ConfusionMatrix(3, ignore)
    good = np.array([0, 2, 2] + [ignore] * (ignore is not None))
    matrix.update(good[::-1] % 3, good)
    before = (matrix.matrix.copy(), matrix.ignored)
    assert before[0].sum() == 3 and before[1] == (ignore is not None)
    if stray == ignore:
        return
    with pytest.raises(ValueError, match=rf"got target values \[{stray}\]"):
        matrix.update(np.array([0, 5, 1, 1]), np.array([1, stray, 2, 0]))
    assert (matrix.matrix == before[0]).all() and matrix.ignored == before[1]
    matrix.update(good[::-1] % 3, good)
    assert (matrix.matrix == 2 * before[0]).all() and matrix.ignored == 2 * before[1]


@pytest.mark.parametrize("ignore", [6, 255, 65535, -1])
def test_the_ignored_number_is_only_a_name(ignore):
    pred, target = maps(11, 6)
    expected = ConfusionMatrix(6).update(pred, target)
    assert expected.ignored > 0
    found = ConfusionMatrix(6, ignore).update(pred, np.where(target == 255, ignore, target))
    assert (found.matrix == expected.matrix).all() and found.ignored == expected.ignored


def test_counts_stay_exact_beyond_float32():
    pred = np.zeros(2**24 + 1, np.uint8)
    assert ConfusionMatrix(2).update(pred, pred).matrix[0, 0] == 2**24 + 1
