"""What must hold whatever the numbers are: each property on 200 random cases, each of a seed of its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kit.oracles.panoptic import random_case
from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix
from ovs_lite.evaluation.metrics.panoptic import PanopticQuality
from ovs_lite.evaluation.metrics.recall import best_iou
from ovs_lite.inference import best_classes
from ovs_lite.losses.grounding import grounding_scores
from ovs_lite.losses.tcl import feature_similarity
from ovs_lite.pamr import pamr
from ovs_lite.regions.ranking import inner_nms

CASES = range(200)
IS_THING = [True, False, True, True, False]
IGNORE = 255


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def order_of(seed, count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def label_maps(seed, classes=4):
    """(prediction, target) of 3 to 12 pixels a side, some of them ignored."""
    rng = np.random.default_rng(seed)
    size = rng.integers(3, 13, 2)
    target = rng.integers(0, classes, size)
    return rng.integers(0, classes, size), np.where(rng.random(size) < 0.2, IGNORE, target)


def counted(*cases):
    matrix = ConfusionMatrix(4, IGNORE)
    for prediction, target in cases:
        matrix.update(prediction, target)
    return matrix


def test_permuting_the_batch_permutes_the_similarities():
    for seed in CASES:
        count, words = 2 + seed % 5, 1 + seed % 3
        regions, texts = drawn(seed, count, 6, 8), drawn(seed + 1000, count, words, 8)
        valid = torch.ones(count, words, dtype=torch.bool)
        order = order_of(seed, count)
        whole = grounding_scores(regions, texts, valid, 0.1)
        close(grounding_scores(regions[order], texts, valid, 0.1), whole[order], 1e-5)
        close(grounding_scores(regions, texts[order], valid, 0.1), whole[:, order], 1e-5)
        pixels = drawn(seed, count, 8, 4, 5)
        similar = feature_similarity(pixels, texts[:, 0], torch.tensor(10.0), torch.tensor(-2.0))
        again = feature_similarity(pixels[order], texts[order, 0], torch.tensor(10.0), torch.tensor(-2.0))
        close(again, similar[order][:, order], 1e-5)


def test_permuting_the_classes_permutes_the_labels():
    for seed in CASES:
        scores, order = drawn(seed, 1, 5, 6, 7), order_of(seed, 5)
        best, labels = best_classes(scores, (9, 8))
        again, permuted = best_classes(scores[:, order], (9, 8))
        close(again, best, 0)
        assert torch.equal(order[permuted.long()], labels.long())


def test_pq_is_sq_times_rq_in_0_to_1_for_every_class():
    seen = 0
    for seed in CASES:
        metric = PanopticQuality(IS_THING).update(*random_case(seed))
        for one in metric.compute().per_class.values():
            if one.classes:
                seen += one.pq > 0
                assert 0 <= one.pq <= 1 and one.pq == pytest.approx(one.sq * one.rq, abs=1e-12)
    assert seen > 200


def test_the_ground_truth_against_itself_is_perfect():
    for seed in CASES:
        _, _, target, infos = random_case(seed)
        infos = [info | {"category_id": max(info["category_id"], 0), "is_crowd": False} for info in infos]
        if infos:
            assert PanopticQuality(IS_THING).update(target, infos, target, infos).compute().all.pq == 1
        _, labels = label_maps(seed)
        prediction = np.where(labels == IGNORE, 0, labels)
        assert counted((prediction, labels)).compute().miou == 1


def test_ids_of_segments_are_only_names():
    for seed in CASES:
        ids, infos, target, about = random_case(seed)
        renamed = {info["id"]: number + 5 for number, info in enumerate(infos)} | {0: 0}
        again = np.vectorize(renamed.get)(ids)
        named = [info | {"id": renamed[info["id"]]} for info in infos]
        first = PanopticQuality(IS_THING).update(ids, infos, target, about)
        assert np.array_equal(PanopticQuality(IS_THING).update(again, named, target, about).counts, first.counts)


def test_halves_merge_to_the_whole_and_ignored_pixels_change_nothing():
    for seed in CASES:
        cases = [label_maps(1000 * seed + n) for n in range(4)]
        whole = counted(*cases)
        assert np.array_equal(counted(*cases[:2]).merge(counted(*cases[2:])).matrix, whole.matrix)
        padded = [(np.pad(p, 1, constant_values=seed % 4), np.pad(t, 1, constant_values=IGNORE)) for p, t in cases]
        assert np.array_equal(counted(*padded).matrix, whole.matrix) and whole.matrix.sum() > 0


def test_suppression_twice_is_suppression_once():
    dropped = 0
    for seed in CASES:
        masks = F.interpolate(drawn(seed, 1, 9, 3, 3), size=(8, 8))[0] > 0.2
        kept = inner_nms(masks)
        dropped += len(masks) - len(kept)
        assert inner_nms(masks[kept]).tolist() == list(range(len(kept)))
    assert dropped > 200


def test_more_proposals_never_find_less_and_their_order_does_not_matter():
    better = 0
    for seed in CASES:
        masks, targets = drawn(seed, 6, 5, 7) > 0, drawn(seed + 1000, 3, 5, 7) > 0
        found = [best_iou(masks, targets, budget) for budget in range(1, 7)]
        assert all((more >= less).all() for less, more in zip(found, found[1:], strict=False))
        close(best_iou(masks[order_of(seed, 6)], targets), found[-1], 0)
        better += int((found[-1] > found[0]).sum())
    assert better > 50, "more proposals find more"


def test_pamr_commutes_with_a_horizontal_flip():
    for seed in CASES:
        image, masks = drawn(seed, 1, 3, 9, 11), drawn(seed + 1000, 1, 3, 9, 11).softmax(1)
        close(pamr(image.flip(3), masks.flip(3), (1, 2), 2), pamr(image, masks, (1, 2), 2).flip(3), 1e-6)
