"""Panoptic quality over records: against the metric image by image, its intervals, shards, and two processes."""

import math

import numpy as np
import pytest
from scipy import stats

from kit.oracles.panoptic import slow_scores
from kit.panoptic import CASES, FIVE, IS_THING, RECORDS, known
from kit.records import toy, without_annotation
from kit.vocabularies import FOUR
from ovs_lite.evaluation import PanopticReport, evaluate_panoptic, pq_difference, pq_interval
from ovs_lite.evaluation.metrics.panoptic import UNIT

GROUPS = {"all": range(5), "things": (0, 2, 3), "stuff": (1, 4)}


def worse(image):
    """The prediction without its first three segments."""
    ids, infos = known(image)
    lost = [info["id"] for info in infos[:3]]
    return np.where(np.isin(ids, lost), 0, ids), infos[3:]


@pytest.fixture(scope="module")
def report():
    return evaluate_panoptic(known, iter(RECORDS), FIVE)


def test_the_scores_are_those_of_sets_of_pixels(report):
    assert report.images == 40 and report.names == FIVE.names and report.protocol == {"vocabulary": "five"}
    table = report.table()
    for group, kept in GROUPS.items():
        assert tuple(table[group].values()) == pytest.approx(slow_scores(CASES, kept)[:3], rel=1e-11)
    assert set(report.by_name) == {"c0", "c1", "c2", "c3", "c4"}
    assert report.by_name["c2"].pq == report.scores.per_class[2].pq < 1


def test_encoded_records_count_as_arrays_do():
    def one(encoded):
        truth = toy("a", [[1, 1, 2], [0, 3, 3]], {1: 0, 2: 1, 3: 2}, crowds=(2,), encoded=encoded)
        found = np.array([[1, 1, 1], [0, 3, 0]]), [{"id": 1, "category_id": 0}, {"id": 3, "category_id": 1}]
        return evaluate_panoptic(lambda image: found, [truth], FOUR).per_image

    assert (one(True) == one(False)).all()
    assert one(True)[0, :3].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_without_a_record_there_are_no_scores():
    with pytest.raises(ValueError, match="got no record of five"):
        _ = evaluate_panoptic(known, [], FIVE).scores


@pytest.mark.parametrize("group", GROUPS)
def test_the_interval_equals_tukeys_pseudo_values(report, group):
    kept, count = GROUPS[group], len(CASES)
    value = slow_scores(CASES, kept)[0]
    without = [slow_scores(CASES[:i] + CASES[i + 1 :], kept)[0] for i in range(count)]
    pseudo = [count * value - (count - 1) * one for one in without]
    half = stats.t.ppf(0.975, count - 1) * np.std(pseudo, ddof=1) / math.sqrt(count)
    low, high = np.mean(pseudo) - half, np.mean(pseudo) + half
    found = pq_interval(report, group)
    assert (found.value, found.low, found.high) == pytest.approx((value, min(value, low), max(value, high)), rel=1e-7)
    assert found.images == count and not found.note


def test_a_difference_is_paired_and_has_a_sign(report):
    lower = evaluate_panoptic(worse, RECORDS[::-1], FIVE)
    found, back = pq_difference(report, lower, "things"), pq_difference(lower, report, "things")
    assert found.value == pytest.approx(report.scores.things.pq - lower.scores.things.pq) and found.value > 0
    apart = (pq_interval(report, "things").error ** 2 + pq_interval(lower, "things").error ** 2) ** 0.5
    assert found.error < 0.8 * apart
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    seeds = pq_difference([report, report], lower, "things")
    assert seeds.seeds == 2 and seeds.value == pytest.approx(found.value)


def test_few_images_or_none_of_a_group_allow_no_interval(report):
    few = evaluate_panoptic(known, RECORDS[:5], FIVE)
    assert "no interval" in pq_interval(few).note and math.isnan(pq_interval(few).low)
    counts = np.zeros((20, 4, 5), np.int64)
    counts[:, 0, 0], counts[:, 3, 0] = 1, UNIT
    counts[:3, 2, 1] = 1
    some = PanopticReport(FIVE.names, tuple(IS_THING), tuple(map(str, range(20))), counts, {})
    assert not pq_interval(some, "things").note and "is in 3 images" in pq_interval(some, "stuff").note
    counts[:3, 2, 1] = 0
    with pytest.raises(ValueError, match="got no segment of stuff in 20 images"):
        pq_interval(some, "stuff")
    with pytest.raises(ValueError, match="got group 'thing', expected one of all, things, stuff"):
        pq_interval(report, "thing")


def test_what_does_not_fit_names_the_record():
    with pytest.raises(ValueError, match="record 'bare' has no segments"):
        evaluate_panoptic(known, [without_annotation()], FIVE)
    with pytest.raises(ValueError, match=r"record 'p3': got pred_ids of \(2, 2\)"):
        evaluate_panoptic(lambda image: (np.zeros((2, 2), int), []), RECORDS[3:], FIVE)
    with pytest.raises(ValueError, match=r"record 'a': got target_info with categories \[10\]"):
        evaluate_panoptic(lambda image: (np.zeros((1, 2), int), []), [toy("a", [[1, 1]])], FIVE)
