"""What an evaluation reports: counts, the best threshold, some of the classes."""

import numpy as np
import pytest

from kit.colour_methods import RECORDS, SLIDE, Likeness, Plain
from kit.records import by_name
from kit.vocabularies import FOUR, GROUND, RGB
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport


def test_of_several_backgrounds_the_best_speaks_and_each_equals_itself_alone():
    cuts = [0.3, -0.9, np.float32(-0.5), -0.2, -0.9]
    report = evaluate_segmentation(Likeness(), RECORDS, GROUND, window=SLIDE, background=cuts)
    assert list(report.by_background) == [0.3, -0.9, -0.5, -0.2]
    for cut, scores in report.by_background.items():
        alone = evaluate_segmentation(Likeness(), RECORDS, GROUND, window=SLIDE, background=cut)
        assert alone.background == cut and alone.scores.miou == scores.miou
        assert (report.counts[cut] == alone.per_image).all() and scores.ignored == alone.scores.ignored
        assert report.image_ids == alone.image_ids
    best = max(report.by_background, key=lambda cut: report.by_background[cut].miou)
    assert report.background == best != cuts[0] and report.scores.miou == report.by_background[best].miou
    assert (report.per_image == report.counts[best]).all()


def test_pictures_without_a_labelled_pixel_count_as_pictures_only():
    void = [by_name(name, ["rgb"], [[-2, -1, -2]]) for name in "ab"]
    report = evaluate_segmentation(Plain(), void, RGB, window=SLIDE)
    assert report.images == 2 and not report.per_image.any() and report.ignored == 6
    with pytest.warns(UserWarning, match="no labelled pixel"):
        assert np.isnan(report.scores.miou)
    more = evaluate_segmentation(Plain(), [*RECORDS[:2], *void], FOUR, window=SLIDE, classes=["red", "green", "blue"])
    assert more.images == 4 and not more.per_image[2:].any() and more.scores.miou > 0
    none = evaluate_segmentation(Plain(), [], GROUND, background=0.1)
    assert none.images == 0 and none.counts[0.1].shape == (0, 3, 4)
    for metric in (lambda: none.scores, lambda: none.by_background, lambda: none.background):
        with pytest.raises(ValueError, match="got no record of toy"):
            metric()


def test_the_protocol_is_recorded():
    report = evaluate_segmentation(Likeness(), RECORDS[:1], FOUR, gain=2.0)
    assert report.protocol == {
        "method": "likeness", "vocabulary": "toy", "templates": "vild14", "short_side": 16, "side": 16, "stride": 8,
        "longest": 2048, "resize": "antialias", "present_only": False, "options": {"gain": 2.0},
    }  # fmt: skip


def test_some_of_the_classes_are_reported_as_they_were_counted_in_the_race_of_all():
    counts = np.array([[[4, 1, 0], [6, 3, 1], [5, 4, 2]]], np.int32)
    report = SegmentationReport(("a", "b", "c"), ("p",), {None: counts}, 0, {"vocabulary": "toy"})
    part = report.only(["c", "a"])
    assert part.names == ("c", "a") and part.scores.iou.tolist() == [0 / 3, 4 / 7]
    assert part.scores.miou == pytest.approx(2 / 7) and report.scores.iou[[2, 0]].tolist() == part.scores.iou.tolist()
    for wrong in (["d"], []):
        with pytest.raises(ValueError, match="expected some of those that were counted"):
            report.only(wrong)
