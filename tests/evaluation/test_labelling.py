"""From scores to labels: against one pixel at a time, in plain Python."""

import math

import numpy as np
import pytest
import torch

from ovs_lite.evaluation.labelling import LabelRule, best_by_rule, large_classes
from ovs_lite.inference import best_classes, resized_classes

OWNERS = np.array([1, 1, 2, 3, 0])  # two phrases of class 1; class 0 is the background


def slow(scores, size, rule, owners, ground, present=None):
    """Best probability and phrase of every pixel of one image, SCLIP's order of steps, one pixel at a time."""
    planes = torch.cat(list(resized_classes(scores[None], size))).tolist()  # P lists of H rows
    phrases = range(len(planes))
    competing = [k for k in phrases if present is None or present[k]]

    def winner(allowed, i, j):
        return max(allowed, key=lambda k: (planes[k][i][j], -k))

    pixels = [(i, j) for i in range(size[0]) for j in range(size[1])]
    areas = dict.fromkeys(owners.tolist(), 0)
    for i, j in pixels:
        areas[owners[winner(competing, i, j)]] += 1
    whole = sum(area for owner, area in areas.items() if owner != ground)
    small = {o for o, area in areas.items() if rule.least_area and o != ground and area <= rule.least_area * whole}
    found = {}
    for i, j in pixels:
        total = math.fsum(math.exp(rule.softmax_scale * planes[k][i][j]) for k in competing)
        kept = [k for k in competing if owners[k] not in small]
        if not kept:
            found[i, j] = (0.0, None)
            continue
        k = winner(kept, i, j)
        found[i, j] = (math.exp(rule.softmax_scale * planes[k][i][j]) / total, k)
    return found


def noise(seed, images=3, phrases=5, side=6):
    return torch.randn(images, phrases, side, side + 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("least", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("some", [False, True])
def test_probabilities_and_dropped_classes_equal_one_pixel_at_a_time(least, some):
    scores, size, rule = noise(0), (9, 11), LabelRule(2.5, least)
    present = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 0, 0, 1, 1]], bool) if some else None
    best, labels = best_by_rule(scores, size, rule, OWNERS, 0, present)
    for b in range(len(scores)):
        expected = slow(scores[b], size, rule, OWNERS, 0, None if present is None else present[b])
        for (i, j), (probability, phrase) in expected.items():
            assert best[b, i, j].item() == pytest.approx(probability, rel=1e-5)
            assert labels[b, i, j] == phrase
    if least == 0.3:
        assert min(len(set(OWNERS[image.unique()])) for image in labels) < 4, "the toy must have a small class"


def test_without_a_rule_it_is_the_best_class():
    for found, expected in zip(
        best_by_rule(noise(1), (6, 7), LabelRule(), OWNERS), best_classes(noise(1), (6, 7)), strict=True
    ):
        assert torch.equal(found, expected)


def test_a_constant_moves_no_probability_and_no_exponential_overflows():
    scores, rule = noise(2), LabelRule(40)
    plain = best_by_rule(scores, (6, 7), rule, OWNERS)
    shifted = best_by_rule(scores + 1000, (6, 7), rule, OWNERS)
    torch.testing.assert_close(shifted[0], plain[0], rtol=0, atol=0.02)  # float32 of 1000
    assert shifted[0].isfinite().all()
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = best_by_rule(scores[:, order], (6, 7), rule, OWNERS[order.numpy()])
    torch.testing.assert_close(permuted[0], plain[0])
    assert torch.equal(order[permuted[1].long()], plain[1].long())


def test_a_larger_scale_makes_surer_and_of_one_phrase_all_are_sure():
    few, many = (best_by_rule(noise(3), (6, 7), LabelRule(scale), OWNERS)[0] for scale in (1, 10))
    assert (many >= few).all() and (many <= 1).all() and (few >= 1 / 5).all()
    assert (best_by_rule(noise(3)[:, :1], (6, 7), LabelRule(40), OWNERS[:1])[0] == 1).all()


def test_the_share_is_of_the_foreground_and_must_be_exceeded():
    labels = np.array([[[0] * 9 + [2], [4] * 10]])  # 9 pixels of class 1, 1 of class 2, 10 of the background
    assert large_classes(labels, OWNERS, 0, 0.05).tolist() == [[True, True, True, False, True]]
    assert large_classes(labels, OWNERS, 0, 0.1).tolist() == [[True, True, False, False, True]]
    assert large_classes(labels, OWNERS, None, 0.1).tolist() == [[True, True, False, False, True]]
    assert large_classes(np.full((1, 2, 2), 4), OWNERS, 0, 0.1).tolist() == [[False] * 4 + [True]]


def test_where_every_class_is_small_nothing_is_probable():
    scores = torch.eye(4)[None, :, None]  # four classes, a pixel each
    best, _ = best_by_rule(scores, (1, 4), LabelRule(10, 0.25), np.arange(4))
    assert (best == 0).all()
    best, labels = best_by_rule(scores, (1, 4), LabelRule(10, 0.24), np.arange(4))
    assert labels.tolist() == [[[0, 1, 2, 3]]] and (best > 0.99).all()


def test_no_image_no_phrase_that_is_present_and_nan():
    best, labels = best_by_rule(noise(4)[:0], (6, 7), LabelRule(40, 0.1), OWNERS, 0)
    assert best.shape == labels.shape == (0, 6, 7)
    best, _ = best_by_rule(noise(4), (6, 7), LabelRule(40), OWNERS, 0, np.zeros((3, 5), bool))
    assert (best == 0).all()
    broken = noise(4)
    broken[1, 2, 3, 3] = torch.nan
    best, _ = best_by_rule(broken, (6, 7), LabelRule(40), OWNERS)
    assert best[1, 3, 3].isnan() and best.isnan().sum() == 1


def test_half_precision_is_summed_in_single():
    scores = noise(5, phrases=4).half()
    best, _ = best_by_rule(scores, (6, 7), LabelRule(40), np.arange(4))
    assert best.dtype == torch.float32
    torch.testing.assert_close(best, best_by_rule(scores.float(), (6, 7), LabelRule(40), np.arange(4))[0])


@pytest.mark.parametrize("wrong", [{"softmax_scale": 0}, {"softmax_scale": float("nan")}, {"least_area": 1.0}])
def test_rules_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=f"got {next(iter(wrong))}="):
        LabelRule(**wrong)
