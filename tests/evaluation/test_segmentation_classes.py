"""Which classes compete: background thresholds, partial class lists, and only those of an image."""

import math

import numpy as np
import pytest
from PIL import Image

from kit.colour_methods import RECORDS, SLIDE, Likeness, Plain
from kit.oracles.segmentation import as_counts, category_map, slow_images, slow_miou
from kit.records import by_name, painted
from kit.vocabularies import FOUR, GROUND, RGB
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.inference import Window, encode_image


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("kept", [None, ["red", "background", "green"], ["red", "blue"]])
def test_background_partial_classes_and_present_only_equal_picture_by_picture(present, kept):
    method, cuts = Likeness(), (-1.5, -0.75, 0.5)
    counted = kept is None or "background" in kept
    given = {"background": cuts} if counted else {}
    report = evaluate_segmentation(
        method, RECORDS, GROUND, window=SLIDE, classes=kept, present_only=present, batch=4, **given
    )
    assert report.names == tuple(kept or GROUND.names) and report.protocol["present_only"] is present
    assert list(report.by_background) == (list(cuts) if counted else [])
    for cut in cuts if counted else [None]:
        expected = slow_images(method, RECORDS, GROUND, SLIDE, cut, kept, present)
        assert report.counts[cut].tolist() == as_counts(expected), cut
        miou = (report.by_background[cut] if counted else report.scores).miou
        assert miou == pytest.approx(slow_miou(as_counts(expected))[0], rel=1e-12)
    assert len({counts.tobytes() for counts in report.counts.values()}) == len(report.counts)


def test_a_pixel_below_the_background_is_background_and_one_at_it_is_not():
    method, window = Plain(), Window(1, 2, 2)
    record = painted("a", [[(255, 0, 0), (102, 0, 0)]], [[3, 1]])
    text = method.clip.text_embeddings(["red"], "")
    best, score = encode_image(method, Image.fromarray(record["image"]), window).scores(text).flatten().tolist()
    assert best == 0 and -0.61 < score < -0.59
    above = np.nextafter(np.float32(score), np.float32(0)).item()
    for cut, right in ((-0.7, [0, 1]), (score, [0, 1]), (above, [1, 1]), (0, [1, 1]), (0.1, [1, 0])):
        given = {"window": window, "background": cut, "classes": ["background", "red"]}
        report = evaluate_segmentation(method, [record], GROUND, **given)
        assert report.per_image[0, 0].tolist() == right, cut
        assert report.per_image[0, 2].tolist() == [1, 1]


@pytest.mark.parametrize("wrong", [None, [], True, float("nan"), math.inf, "0.4", ["0.4"], [0.4, None]])
def test_a_background_class_needs_numbers(wrong):
    with pytest.raises(
        ValueError, match="'toy' has a background class; expected the score below which a pixel belongs"
    ):
        evaluate_segmentation(Likeness(), [], GROUND, background=wrong)


def test_a_background_that_nobody_asked_for_is_refused():
    for world, kept in ((RGB, None), (GROUND, ["red", "blue"])):
        with pytest.raises(ValueError, match=r"got background=0.4, but no class of 'toy' that is counted is a backgr"):
            evaluate_segmentation(Likeness(), [], world, background=0.4, classes=kept)


def test_only_the_chosen_classes_are_asked_of_the_text_tower():
    method = Likeness()
    evaluate_segmentation(method, RECORDS[:1], GROUND, window=SLIDE, background=0.4)
    assert method.clip.asked == (["green", "blue", "red"], "vild14")
    evaluate_segmentation(method, RECORDS[:1], FOUR, window=SLIDE, classes=["azure", "red"], templates="single")
    assert method.clip.asked == (["blue", "red"], "single")
    method.templates = "single"
    report = evaluate_segmentation(method, RECORDS[:1], FOUR, window=SLIDE)
    assert method.clip.asked[1] == "single" == report.protocol["templates"]
    assert evaluate_segmentation(method, RECORDS[:1], FOUR, templates="vild14").protocol["templates"] == "vild14"


@pytest.mark.parametrize("wrong", [[], ["background"], ["red", "red"], ["red", "Red"], ["red", "crimson"], "red"])
def test_classes_that_cannot_compete_are_refused(wrong):
    with pytest.raises(ValueError, match=r"got class"):
        evaluate_segmentation(Likeness(), [], GROUND, background=0.4, classes=wrong)


def test_a_single_class_wins_everywhere():
    report = evaluate_segmentation(Likeness(), RECORDS, FOUR, window=SLIDE, classes=["green"])
    assert report.per_image.shape == (len(RECORDS), 3, 1) and report.scores.miou == report.scores.pixel_accuracy == 1
    assert report.scores.pixels == sum((category_map(record) == 1).sum() for record in RECORDS)
    with_ground = evaluate_segmentation(
        Plain(), RECORDS, GROUND, window=SLIDE, classes=["green", "background"], background=-1
    )
    assert 0 < with_ground.scores.miou < 1 and (with_ground.per_image[:, 1].sum(0) > 0).all()


def test_present_only_leaves_the_classes_of_a_picture_to_compete():
    records = [
        by_name("a", ["rgb"], [[0, 0, 2]]),
        by_name("b", ["rgb"], [[1, -2, -1]]),
        by_name("c", ["rg"], [[-1, -2]]),
    ]
    report = evaluate_segmentation(Plain(), records, RGB, window=Window(1, 3, 3), present_only=True)
    assert report.per_image[0].tolist() == [[2, 0, 1]] * 3, "green is as far from red as from blue; the first wins"
    assert report.per_image[1].tolist() == [[0, 1, 0]] * 3 and not report.per_image[2].any()
    free = evaluate_segmentation(Plain(), records, RGB, window=Window(1, 3, 3))
    assert free.scores.miou < report.scores.miou


def test_auto_takes_the_methods_own_threshold_where_there_is_a_background():
    method = Likeness()
    method.background = -0.75
    report = evaluate_segmentation(method, RECORDS, GROUND, window=SLIDE, background="auto")
    fixed = evaluate_segmentation(method, RECORDS, GROUND, window=SLIDE, background=-0.75)
    assert report.background == -0.75 and (report.per_image == fixed.per_image).all()
    assert evaluate_segmentation(method, RECORDS, FOUR, window=SLIDE, background="auto").background is None
    with pytest.raises(ValueError, match="has a background class"):
        evaluate_segmentation(Likeness(), RECORDS, GROUND, background="auto")


def test_a_threshold_may_depend_on_the_options():
    method = Likeness()
    method.background_below = lambda gain=1.0, **options: -0.75 if gain == 1 else -1.5
    for given, cut in (({}, -0.75), ({"gain": 0.5}, -1.5)):
        report = evaluate_segmentation(method, RECORDS, GROUND, window=SLIDE, background="auto", **given)
        assert report.background == cut


def test_a_picture_without_background_has_none_among_its_own_classes():
    record = painted("a", [[(255, 0, 0)]], [[3]])
    given = {"window": Window(1, 1, 1), "background": 2.0, "classes": ["background", "red"]}  # above every score
    report = evaluate_segmentation(Plain(), [record], GROUND, grounding=True, **given)
    assert report.per_image[0, 1].tolist() == [1, 0] and report.grounding.per_image[0, 1].tolist() == [0, 1]


def test_both_mious_of_one_pass_equal_two_passes():
    method, given = Likeness(), {"window": SLIDE, "background": (-1.5, -0.5), "batch": 4}
    both = evaluate_segmentation(method, RECORDS, GROUND, grounding=True, **given)
    free = evaluate_segmentation(method, RECORDS, GROUND, **given)
    bound = evaluate_segmentation(method, RECORDS, GROUND, present_only=True, **given)
    assert free.grounding is None and both.protocol == free.protocol and both.grounding.protocol == bound.protocol
    for cut in (-1.5, -0.5):
        assert (both.counts[cut] == free.counts[cut]).all()
        assert (both.grounding.counts[cut] == bound.counts[cut]).all()
    one = both.only(["red"])
    red = bound.counts[-0.5][:, :, [bound.names.index("red")]]
    assert one.grounding.names == ("red",) and (one.grounding.counts[-0.5] == red).all()
