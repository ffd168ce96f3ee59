"""Panoptic quality against sets of pixels and fractions, hand-made cases of COCO's rules, and its invariances."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality as TorchmetricsPanoptic

from kit.oracles.panoptic import random_case, slow_counts, slow_scores
from kit.vocabularies import FOUR
from ovs_lite.evaluation import PanopticQuality
from ovs_lite.evaluation.metrics import panoptic
from ovs_lite.evaluation.metrics.panoptic import UNIT

IS_THING = [True, False, True, True, False]
CASES = [random_case(seed) for seed in range(150)]


def measured(*cases, categories=IS_THING):
    metric = PanopticQuality(categories)
    for case in cases:
        metric.update(*case)
    return metric


def infos(**categories):
    """s3=1: segment 3 is of class 1; c3=1: as a crowd."""
    return [{"id": int(k[1:]), "category_id": c, "is_crowd": k[0] == "c"} for k, c in categories.items()]


def owned(ids, owner):
    """The infos of a map, from the class of every pixel."""
    return [{"id": int(n), "category_id": int(owner[ids == n][0])} for n in np.unique(ids)]


def row(*ids):
    return np.array([ids])


@pytest.mark.parametrize("table", [0, 10**6])
def test_every_image_counts_as_sets_of_pixels_do(table, monkeypatch):
    monkeypatch.setattr(panoptic, "TABLE", table)  # ids are looked up by search, or in a table
    for case in CASES:
        found, expected = measured(case).counts, slow_counts(*case)
        for category in range(5):
            true, false, missed, iou = expected.get(category, [0, 0, 0, 0])
            assert found[:3, category].tolist() == [true, false, missed]
            assert abs(found[3, category] - iou * UNIT) <= max(true, 0.5)
    whole = measured(*CASES).counts
    assert (whole[:3].sum(1) > 150).all(), "the cases must show every outcome often"


def test_the_scores_of_many_images_are_those_of_fractions():
    scores = measured(*CASES).compute()
    groups = {"all": range(5), "things": (0, 2, 3), "stuff": (1, 4)}
    for name, kept in groups.items():
        found = getattr(scores, name)
        assert (found.pq, found.sq, found.rq, found.classes) == pytest.approx(slow_scores(CASES, kept), rel=1e-11)
    for category in range(5):
        found = scores.per_class[category]
        assert (found.pq, found.sq, found.rq, found.classes) == pytest.approx(slow_scores(CASES, [category]), rel=1e-11)
        assert found.pq == pytest.approx(found.sq * found.rq)
    assert scores.all.pq != pytest.approx(scores.all.sq * scores.all.rq, abs=1e-6)


def test_equals_torchmetrics_where_nothing_is_void_or_a_crowd():
    rng, images = np.random.default_rng(0), []
    known = TorchmetricsPanoptic({0, 2, 3}, {1, 4}, return_sq_and_rq=True, return_per_class=True)
    for _ in range(30):
        maps = []
        for cells in (rng.integers(0, 8, (3, 3)),) * 2:
            ids = np.roll(cells.repeat(5, 0).repeat(5, 1), rng.integers(0, 2, 2), (0, 1)) + 1
            owner = np.array([0, 1, 2, 3, 4, 0, 2, 3, 3]) if len(maps) == 0 else np.array([0, 1, 2, 3, 4, 0, 0, 3, 2])
            maps.append((ids, owner[ids]))
        (pred, found), (target, wanted) = maps
        pairs = (torch.from_numpy(np.stack(pair, -1))[None] for pair in ((found, pred), (wanted, target)))
        known.update(*pairs)
        images.append([part for ids, owner in maps for part in (ids, owned(ids, owner))])
    expected, scores = known.compute(), measured(*images).compute()
    for row, category in enumerate((0, 2, 3, 1, 4)):
        one = scores.per_class[category]
        assert (one.pq, one.sq, one.rq) == pytest.approx(expected[row].tolist(), rel=1e-6)
    assert 0.2 < scores.all.pq < 0.9


def test_parts_merge_to_the_same_bits_in_any_order():
    whole, parts = measured(*CASES), [measured(*CASES[rank::3]) for rank in range(3)]
    merged = measured().merge(parts[2]).merge(parts[0]).merge(parts[1])
    assert (merged.counts == whole.counts).all() and merged.counts.dtype == np.int64
    assert (measured(*CASES[::-1]).counts == whole.counts).all()
    with pytest.raises(ValueError, match="got counts of 5 categories, 5 of things, expected the same 5"):
        whole.merge(PanopticQuality([True] * 5))


def test_ids_are_only_names():
    rng = np.random.default_rng(0)
    for pred, pred_info, target, target_info in CASES[:20]:
        new = []
        for ids, infos_of in ((pred, pred_info), (target, target_info)):
            numbers = [info["id"] for info in infos_of]
            names = dict(zip(numbers, rng.permutation(np.arange(1, 99))[: len(numbers)].tolist(), strict=True)) | {0: 0}
            named = [info | {"id": names[info["id"]]} for info in infos_of]
            new += [torch.from_numpy(np.vectorize(names.get)(ids)), named]
        assert (measured(new).counts == measured((pred, pred_info, target, target_info)).counts).all()


def test_flips_and_other_types_change_nothing_and_listing_order_does_only_for_crowds():
    for pred, pred_info, target, target_info in CASES[:20]:
        plain = measured((pred, pred_info, target, target_info)).counts
        flipped = measured((pred[::-1, ::-1], pred_info[::-1], target[::-1, ::-1], target_info)).counts
        other = measured((pred.T.astype(np.int32), pred_info, target.T.astype(np.uint32), target_info)).counts
        assert (flipped == plain).all() and (other == plain).all()


def test_the_ground_truth_against_itself_is_perfect():
    known = []
    for _, _, target, target_info in CASES:
        found = [info for info in target_info if info["category_id"] >= 0 and not info["is_crowd"]]
        ids = np.where(np.isin(target, [info["id"] for info in found]), target, 0)
        known.append((ids, found, target, target_info))
    scores = measured(*known).compute()
    for group in (scores.all, scores.things, scores.stuff, *scores.per_class.values()):
        assert (group.pq, group.sq, group.rq) == (1, 1, 1)
    assert scores.all.classes == 5


def test_a_match_needs_more_than_half_the_union_and_void_is_left_out_of_it():
    target, wanted = row(1, 1, 2, 2, 2, 2), infos(s1=0, s2=1)
    half = measured((row(0, 3, 0, 0, 0, 0), infos(s3=0), target, wanted))
    assert half.counts[:3, 0].tolist() == [0, 1, 1], "an IoU of exactly 0.5 is none"
    three = measured((row(0, 0, 3, 3, 3, 0), infos(s3=1), target, wanted))
    assert three.counts[:, 1].tolist() == [1, 0, 0, round(0.75 * UNIT)]
    wide = measured((row(3, 3, 3, 3, 3, 0), infos(s3=1), row(0, 0, 2, 2, 2, 2), infos(s2=1)))
    assert wide.counts[:, 1].tolist() == [1, 0, 0, round(0.75 * UNIT)], "two of its pixels lie on void"
    unlabelled = measured((row(3, 3, 3, 3, 3, 0), infos(s3=1), target, infos(s1=-1, s2=1)))
    assert (unlabelled.counts == wide.counts).all()
    other = measured((row(0, 0, 3, 3, 3, 3), infos(s3=4), target, wanted))
    assert other.counts[:3].sum(1).tolist() == [0, 1, 2], "another class is no match, however good"


def test_a_false_positive_is_excused_by_more_than_half_on_void_and_its_own_crowd():
    def false(pred, target, wanted):
        return measured((pred, infos(s9=0), target, wanted)).counts[1, 0]

    assert false(row(9, 9, 9, 9), row(0, 0, 1, 1), infos(s1=1)) == 1, "half is not enough"
    assert false(row(9, 9, 9, 9), row(0, 0, 0, 1), infos(s1=1)) == 0
    assert false(row(9, 9, 9, 9), row(2, 2, 2, 1), infos(s1=1, c2=0)) == 0
    assert false(row(9, 9, 9, 9), row(0, 2, 2, 1), infos(s1=1, c2=0)) == 0, "void and crowd together"
    assert false(row(9, 9, 9, 9), row(2, 2, 2, 1), infos(s1=1, c2=1)) == 1, "another class's crowd"
    crowds = row(2, 2, 2, 3)
    assert false(row(9, 9, 9, 9), crowds, infos(c3=0, c2=0)) == 0 and false(row(9, 9, 9, 9), crowds, infos(c2=0, c3=0))
    crowd = measured((row(9, 9, 9, 9), infos(s9=0), row(2, 2, 2, 2), infos(c2=0)))
    assert not crowd.counts.any(), "a crowd is matched by nothing and missed by nobody"


def test_without_anything_the_scores_are_nan_and_one_class_alone_is_averaged():
    empty = measured().compute()
    assert math.isnan(empty.all.pq) and empty.all.classes == 0 and math.isnan(empty.per_class[0].sq)
    none = measured((row(0, 0), [], row(0, 0), [])).compute()
    assert math.isnan(none.all.pq)
    missed = measured((row(0, 0), [], row(1, 1), infos(s1=2))).compute()
    assert (missed.all.pq, missed.all.sq, missed.all.rq, missed.all.classes) == (0, 0, 0, 1)
    assert missed.things.classes == 1 and missed.stuff.classes == 0 and math.isnan(missed.stuff.pq)
    invented = measured((row(1, 1), infos(s1=2), row(2, 2), infos(s2=1))).compute()
    assert invented.all.classes == 2 and invented.all.rq == 0


def test_categories_may_be_a_vocabulary_or_cocos_list():
    entries = [{"id": 7, "isthing": 1}, {"id": 200, "isthing": 0}]
    case = row(1, 2), infos(s1=7, s2=200), row(1, 2), infos(s1=7, s2=7)
    scores = measured(case, categories=entries).compute()
    assert scores.things.rq == pytest.approx(2 / 3) and scores.stuff.rq == 0 and set(scores.per_class) == {7, 200}
    assert PanopticQuality(FOUR).is_thing == dict.fromkeys(range(4), False)
    coco_crowd = [{"id": 1, "category_id": 7, "iscrowd": 1}]
    assert not measured((row(0), [], row(1), coco_crowd), categories=entries).counts.any()
    for wrong in ([], ["cat"], [{"id": 1, "isthing": 1}] * 2, [1, 0]):
        with pytest.raises(ValueError, match="expected"):
            PanopticQuality(wrong)


@pytest.mark.parametrize(
    "case, message",
    [
        ((row(1, 1), infos(s1=0), row(1), infos(s1=0)), r"pred_ids of \(1, 2\) and target_ids of \(1, 1\)"),
        ((row(1.0), infos(s1=0), row(1), infos(s1=0)), "float64, expected .H, W. integer segment ids"),
        ((np.zeros(3, int), [], row(1), infos(s1=0)), r"pred_ids \(3,\)"),
        ((np.zeros((0, 4), int), [], np.zeros((0, 4), int), []), r"pred_ids \(0, 4\)"),
        ((row(-1), [], row(1), infos(s1=0)), "pred_ids with -1"),
        ((row(1, 5), infos(s1=0), row(1, 1), infos(s1=0)), r"ids \[5\] in pred_ids, expected only 0 and those of pred"),
        ((row(1), infos(s1=0), row(4), infos(s1=0)), r"ids \[4\] in target_ids"),
        ((row(1), infos(s1=0, s2=0), row(1), infos(s1=0)), r"pred_info of ids \[2\], expected only those that"),
        ((row(1), infos(s1=0), row(1), infos(s1=0, s3=1)), r"target_info of ids \[3\]"),
        ((row(1), infos(s1=0) * 2, row(1), infos(s1=0)), r"pred_info with ids \[1, 1\], expected different"),
        ((row(1), infos(s1=0, s0=1), row(1), infos(s1=0)), "expected different ones above 0"),
        ((row(1), infos(s1=-1), row(1), infos(s1=0)), r"pred_info with categories \[-1\]"),
        ((row(1), infos(s1=0), row(1), infos(s1=5)), r"target_info with categories \[5\], expected those of the 5"),
    ],
)
def test_what_does_not_fit_is_an_error_and_counts_nothing(case, message):
    metric = measured(CASES[0])
    before = metric.counts.copy()
    with pytest.raises(ValueError, match=message):
        metric.update(*case)
    assert (metric.counts == before).all()
