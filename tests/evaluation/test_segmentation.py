"""mIoU of a method on a set: against picture by picture, against sets of pixels, intervals, and the command."""

import itertools
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ovs_lite import cli
from ovs_lite.clip import load_clip
from ovs_lite.commands.evaluate_segmentation import as_markdown, main, parse_options
from ovs_lite.config import get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary, parse_vocabulary
from ovs_lite.evaluation import segmentation, segmentation_command
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport, bootstrap_difference, weighted_miou
from ovs_lite.iconworld.build import build_set
from ovs_lite.inference import Window, encode_image, resized_classes
from ovs_lite.methods import METHODS, Method, get_method
from ovs_lite.methods.clip_cam import ClipCam

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
SLIDE = Window(10, 6, 4)
WHOLE = Window(8, 64, 64)


def vocabulary(*names, background=None, synonyms=None):
    classes = [
        {"id": i, "name": name, "synonyms": (synonyms or {}).get(name, []), "is_thing": False}
        for i, name in enumerate(names)
    ]
    ground = None if background is None else {"class": background}
    content = {"name": "toy", "source": "test", "count": len(names), "ignore_index": 65535, "background": ground}
    return parse_vocabulary(content | {"classes": classes})


RGB = vocabulary("red", "green", "blue")
FOUR = vocabulary("red", "green", "blue", "white", synonyms={"blue": ["azure"]})
GROUND = vocabulary("green", "background", "blue", "red", background=1)


class ToyClip(nn.Module):
    """A class name's embedding is its colour in [0, 1]."""

    image_size, device = 8, torch.device("cpu")

    def normalise(self, images):
        return images * 2 - 1

    def text_embeddings(self, names, templates):
        self.asked = (list(names), templates)
        return torch.tensor([COLOURS[name] for name in names]) / 255


class Likeness(Method):
    """Minus the distance of a pixel's colour to the class's; the window's first pixel says how much red is worth, so
    that every window has an opinion. Only operations that are exact whatever the batch.
    """

    name = "likeness"

    def __init__(self):
        super().__init__(ToyClip())
        self.shapes = []

    def encode(self, images):
        self.shapes.append(tuple(images.shape))
        return images

    def scores(self, images, text_embeddings, gain=1.0):
        red, green, blue = (images[:, None] / 2 + 0.5 - text_embeddings[:, :, None, None]).abs().unbind(2)
        opinion = images[:, 0, 0, 0].view(-1, 1, 1, 1) * text_embeddings[:, 0].view(-1, 1, 1)
        return opinion - gain * (red + green + blue)


class Plain(Likeness):
    """The same without the window's opinion."""

    def scores(self, images, text_embeddings):
        return -(images[:, None] / 2 + 0.5 - text_embeddings[:, :, None, None]).abs().sum(2)


def painted(name, image, categories):
    """A record from (H, W, 3) colours and (H, W) class ids; -1 is a segment without class, -2 is nobody's."""
    image, categories = np.asarray(image, np.uint8), np.asarray(categories)
    known = sorted(set(np.unique(categories)) - {-2})
    segments, infos = np.zeros(categories.shape, np.int32), []
    for number, category in enumerate(known, 1):
        segments[categories == category] = number
        infos.append({"id": number, "category_id": int(category), "is_thing": False, "is_crowd": False})
    return {"image_id": name, "image": image, "segments": segments, "segments_info": infos, "captions": []}


def by_name(name, rows, categories):
    """A record whose picture is given by colour names, "r", "g", "b", "w" per pixel."""
    colours = {key[0]: colour for key, colour in COLOURS.items()}
    return painted(name, [[colours[letter] for letter in row] for row in rows], categories)


def noise(seed, height, width, classes=4, name=None):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3))
    return painted(name or f"noise-{seed}", image, rng.integers(-2, classes, (height, width)))


SIZES = [(9, 12)] * 4 + [(12, 9)] * 2 + [(9, 12)] + [(20, 17)] * 3 + [(8, 8)] * 3
RECORDS = [noise(seed, *size) for seed, size in enumerate(SIZES)]
RECORDS.insert(3, noise(99, 9, 12) | {"segments_info": [], "segments": np.zeros((9, 12), np.int32)})


def category_map(record):
    owner = {info["id"]: info["category_id"] for info in record["segments_info"]} | {0: -1}
    return np.vectorize(owner.get, otypes=[int])(record["segments"])


def logits_of(scores, size):
    return np.concatenate([plane.float().numpy() for plane in resized_classes(scores, size)])


def slow_pictures(method, records, world, window, background=None, kept=None, present=False, **options):
    """Per picture {class name: (right, predicted, target)}, one picture, one class and one Boolean mask at a time."""
    kept = list(world.names) if kept is None else kept
    ground = None if world.background is None else world.names[world.background]
    asked = [name for name in kept if name != ground]
    text = method.clip.text_embeddings(asked, "vild14")
    result = []
    for record in records:
        truth = category_map(record)
        image = Image.fromarray(record["image"])
        logits = logits_of(encode_image(method, image, window).scores(text, **options), truth.shape)
        for k, name in enumerate(asked):
            if present and not (truth == world.names.index(name)).any():
                logits[k] = -np.inf
        labels = np.where(logits.max(0) < (-np.inf if background is None else background), -1, logits.argmax(0))
        found = np.array([*asked, ground], object)[labels]
        wanted = np.array([*world.names, None], object)[truth]
        counts = {}
        for name in kept:
            valid = np.isin(wanted, kept)
            p, t = (found == name) & valid, (wanted == name) & valid
            counts[name] = ((p & t).sum(), p.sum(), t.sum())
        result.append(counts)
    return result


def slow_miou(pictures):
    ious = []
    for name in pictures[0]:
        right, predicted, target = (sum(int(counts[name][part]) for counts in pictures) for part in range(3))
        if predicted + target > right or right:
            ious.append(right / (predicted + target - right))
    return sum(ious) / len(ious) if ious else math.nan


def as_counts(pictures):
    return [[[counts[name][part] for name in counts] for part in range(3)] for counts in pictures]


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("window", [SLIDE, WHOLE, Window(8, 8, 4), Window(9, 9, 9), Window(7, 3, 2)])
def test_batches_equal_picture_by_picture_exactly(batch, window):
    method, world = Likeness(), FOUR
    report = evaluate_segmentation(method, iter(RECORDS), world, window=window, batch=batch, gain=1.5)
    expected = slow_pictures(method, RECORDS, world, window, gain=1.5)
    assert report.per_image.tolist() == as_counts(expected)
    assert report.scores.miou == pytest.approx(slow_miou(expected), rel=1e-12)
    assert report.image_ids == tuple(record["image_id"] for record in RECORDS) and report.images == len(RECORDS)
    assert len({counts["white"] for counts in expected}) > 5, "the toy must disagree with the truth in its own ways"


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
        expected = slow_pictures(method, RECORDS, GROUND, SLIDE, cut, kept, present)
        assert report.counts[cut].tolist() == as_counts(expected), cut
        assert report.matrices[cut].compute().miou == pytest.approx(slow_miou(expected), rel=1e-12)
    assert len({report.matrices[cut].matrix.tobytes() for cut in report.matrices}) == len(report.matrices)


def test_every_pixel_of_a_hand_made_pair_of_pictures():
    records = [
        by_name("a", ["rrgg", "rrbb"], [[0, 0, 1, 1], [0, 1, 1, -2]]),
        by_name("b", ["gr", "gg", "bb"], [[1, 1], [-1, 1], [2, 0]]),
    ]
    report = evaluate_segmentation(Plain(), records, RGB, window=Window(2, 4, 2))
    assert report.per_image.tolist() == [[[3, 2, 0], [4, 2, 1], [3, 4, 0]], [[0, 2, 1], [1, 2, 2], [1, 3, 1]]]
    assert report.matrices[None].matrix[:, :3].tolist() == [[3, 0, 1], [2, 4, 1], [0, 0, 1]]
    assert report.scores.iou.tolist() == [3 / 6, 4 / 7, 1 / 3]
    assert (report.scores.pixels, report.scores.ignored) == (12, 2) and report.scores.pixel_accuracy == 8 / 12
    assert (report.names, report.background, report.by_background) == (RGB.names, None, {})


def test_a_class_that_is_nowhere_is_left_out_and_one_that_is_only_predicted_counts_as_zero():
    records = [by_name("a", ["rrgg"], [[0, 0, 0, 0]])]
    report = evaluate_segmentation(Plain(), records, RGB, window=Window(1, 4, 4))
    assert report.scores.miou == pytest.approx((0.5 + 0) / 2) and report.scores.classes_counted == 2
    assert np.isnan(report.scores.iou[2])


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


def test_of_several_backgrounds_the_best_speaks_and_each_equals_itself_alone():
    cuts = [0.3, -0.9, np.float32(-0.5), -0.2, -0.9]
    report = evaluate_segmentation(Likeness(), RECORDS, GROUND, window=SLIDE, background=cuts)
    assert list(report.by_background) == [0.3, -0.9, -0.5, -0.2]
    for cut, scores in report.by_background.items():
        alone = evaluate_segmentation(Likeness(), RECORDS, GROUND, window=SLIDE, background=cut)
        assert alone.background == cut and alone.scores.miou == scores.miou
        chosen = report.at(cut)
        assert (chosen.per_image == alone.per_image).all() and list(chosen.by_background) == [cut]
        assert (chosen.matrices[cut].matrix == alone.matrices[cut].matrix).all() and chosen.image_ids == alone.image_ids
    best = max(report.by_background, key=lambda cut: report.by_background[cut].miou)
    assert report.background == best != cuts[0] and report.scores.miou == report.by_background[best].miou
    assert (report.per_image == report.counts[best]).all()
    with pytest.raises(ValueError, match=r"got background=0.7, expected one of 0.3, -0.9, -0.5, -0.2"):
        report.at(0.7)


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
    report = evaluate_segmentation(method, [], FOUR, window=SLIDE)
    assert method.clip.asked[1] == "single" == report.protocol["templates"]
    assert evaluate_segmentation(method, [], FOUR, templates="vild14").protocol["templates"] == "vild14"


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


def test_pictures_without_a_labelled_pixel_count_as_pictures_only():
    void = [by_name(name, ["rgb"], [[-2, -1, -2]]) for name in "ab"]
    report = evaluate_segmentation(Plain(), void, RGB, window=SLIDE)
    assert report.images == 2 and not report.per_image.any() and report.matrices[None].ignored == 6
    with pytest.warns(UserWarning, match="no labelled pixel"):
        assert np.isnan(report.scores.miou)
    more = evaluate_segmentation(Plain(), [*RECORDS[:2], *void], FOUR, window=SLIDE, classes=["red", "green", "blue"])
    assert more.images == 4 and not more.per_image[2:].any() and more.scores.miou > 0
    none = evaluate_segmentation(Plain(), [], GROUND, background=0.1)
    assert none.images == 0 and none.per_image.shape == (0, 3, 4)


def test_neighbours_of_one_size_go_together_and_memory_bounds_them(monkeypatch):
    def shapes(batch, window=WHOLE):
        method = Likeness()
        report = evaluate_segmentation(method, RECORDS, FOUR, window=window, batch=batch)
        assert report.images == len(RECORDS)
        return [shape[0] for shape in method.shapes]

    assert shapes(16) == [5, 2, 1, 3, 3]
    assert shapes(2) == [2, 2, 1, 2, 1, 2, 1, 2, 1] and shapes(1) == [1] * 14
    monkeypatch.setitem(segmentation.SCORES_AT_ONCE, "cpu", 4 * 2 * 9 * 12)
    assert shapes(16) == [2, 2, 1, 2, 1, 1, 1, 1, 3], "the truth's 9 * 12 and 20 * 17 pixels bound the batch"
    assert shapes(16, Window(18, 64, 64)) == [1] * 14, "and so do the resized picture's"
    monkeypatch.setitem(segmentation.SCORES_AT_ONCE, "cpu", 1)
    assert shapes(16) == [1] * 14, "a picture that is larger than the budget goes alone"


def test_windows_of_a_batch_at_the_same_place_go_together():
    method = Likeness()
    evaluate_segmentation(method, RECORDS[:5], FOUR, window=SLIDE)
    assert method.shapes == [(5, 3, 6, 6)] * (2 * 3)


def test_the_truth_may_have_another_size_than_the_picture():
    small = noise(5, 9, 12)
    record = small | {"image": np.asarray(Image.fromarray(small["image"]).resize((30, 21)))}
    report = evaluate_segmentation(Likeness(), [record, small], FOUR, window=SLIDE)
    assert report.scores.pixels == 2 * (category_map(small) >= 0).sum()
    assert report.per_image.tolist() == as_counts(slow_pictures(Likeness(), [record, small], FOUR, SLIDE))


def test_half_precision_of_a_method_changes_nothing_but_the_scores_themselves():
    class Half(Likeness):
        def scores(self, *given):
            return super().scores(*given).half()

    for window in (SLIDE, WHOLE):
        report = evaluate_segmentation(Half(), RECORDS, FOUR, window=window)
        assert report.per_image.tolist() == as_counts(slow_pictures(Half(), RECORDS, FOUR, window))


def test_records_are_read_once_and_not_far_ahead():
    read = []

    def stream():
        for record in RECORDS:
            read.append(len(method.shapes))
            yield record

    method = Likeness()
    evaluate_segmentation(method, stream(), FOUR, window=WHOLE, batch=2)
    assert read == [0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8], "how many batches were done when each was read"


def test_modules_stand_still_and_are_as_they_were_afterwards():
    class Noisy(Plain):
        def __init__(self):
            super().__init__()
            self.drop, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()

        def encode(self, images):
            return super().encode(self.frozen(self.drop(images)))

        def scores(self, images, text_embeddings, fail=False):
            assert not torch.is_grad_enabled() and not fail
            return super().scores(images, text_embeddings)

    method = Noisy().train()
    method.frozen.eval()
    report = evaluate_segmentation(method, RECORDS, FOUR, window=SLIDE)
    plain = evaluate_segmentation(Plain(), RECORDS, FOUR, window=SLIDE)
    assert (report.per_image == plain.per_image).all()
    assert (method.training, method.drop.training, method.frozen.training) == (True, True, False)
    with pytest.raises(AssertionError):
        evaluate_segmentation(method, RECORDS, FOUR, window=SLIDE, fail=True)
    assert (method.training, method.drop.training, method.frozen.training) == (True, True, False)


def test_the_protocol_is_recorded():
    report = evaluate_segmentation(Likeness(), RECORDS[:1], FOUR, gain=2.0)
    assert report.protocol == {
        "method": "likeness", "vocabulary": "toy", "templates": "vild14", "short_side": 16, "side": 16, "stride": 8,
        "longest": 2048, "resize": "antialias", "present_only": False, "options": {"gain": 2.0},
    }  # fmt: skip


def test_records_and_scores_that_cannot_be_counted_are_named():
    class Broken(Likeness):
        def scores(self, images, text_embeddings):
            scores = super().scores(images, text_embeddings)
            scores[-1, 1, 2, 3] = torch.nan
            return scores

    bare = RECORDS[0] | {"segments": None, "segments_info": None}
    for records, message in (
        ([bare], "record 'noise-0' has no segments"),
        ([noise(1, 8, 8, 6)], r"'noise-1' has categories \[4, 5\], expected -1..3 of 'toy'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_segmentation(Likeness(), records, GROUND, background=0.4)
    for window in (SLIDE, WHOLE):
        with pytest.raises(ValueError, match="scores of likeness that are NaN in noise-0, noise-1, expected numbers"):
            evaluate_segmentation(Broken(), RECORDS[:2], FOUR, window=window)
    with pytest.raises(ValueError, match="got batch=0, expected at least 1"):
        evaluate_segmentation(Likeness(), RECORDS, FOUR, batch=0)


def test_shards_merge_to_the_whole():
    def measured(records, **given):
        return evaluate_segmentation(Likeness(), records, GROUND, window=SLIDE, **({"background": (-1, -0.5)} | given))

    whole, parts = measured(RECORDS), [measured(RECORDS[rank::3]) for rank in range(3)]
    before = parts[0].matrices[-1].matrix.copy()
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(measured([]))
    assert (parts[0].matrices[-1].matrix == before).all() and parts[0].images == 5
    rows = [merged.image_ids.index(image_id) for image_id in whole.image_ids]
    assert sorted(rows) == list(range(len(RECORDS))) and merged.names == whole.names
    for cut in (-1, -0.5):
        assert (merged.counts[cut][rows] == whole.counts[cut]).all()
        assert (merged.matrices[cut].matrix == whole.matrices[cut].matrix).all()
        assert merged.matrices[cut].ignored == whole.matrices[cut].ignored > 0
    assert (merged.background, merged.scores.miou) == (whole.background, whole.scores.miou)
    with pytest.raises(ValueError, match="got 5 pictures in both reports, such as 'noise-1', expected none"):
        merged.merge(parts[1])
    for other in (measured([], background=-1), measured([], classes=["red", "background"]), measured([], gain=3.0)):
        with pytest.raises(ValueError, match="expected the same classes and protocol"):
            whole.merge(other)


def test_counts_and_matrix_agree():
    report = evaluate_segmentation(Likeness(), RECORDS, GROUND, window=SLIDE, background=-0.6)
    matrix = report.matrices[-0.6].matrix
    expected = [matrix.diagonal(), matrix[:, :-1].sum(0), matrix.sum(1)]
    np.testing.assert_array_equal(report.per_image.sum(0), expected)
    ones = np.ones((1, report.images))
    assert weighted_miou(report.per_image, ones)[0] == pytest.approx(report.scores.miou, rel=1e-14)


def fake(seed, count=12, classes=6, quality=0.5):
    """A report of random counts in which class 5 is nowhere, 4 is only predicted, and 3 is in one picture only."""
    rng = np.random.default_rng(seed)
    target = np.random.default_rng(7).integers(0, 90, (count, classes))
    target[:, 4:] = target[1:, 3] = 0
    right = (target * rng.uniform(quality, 1, target.shape)).astype(int)
    predicted = right + rng.integers(0, 9, target.shape)
    predicted[:, 5] = predicted[1:, 3:5] = 0
    counts = np.stack([right, predicted, target], 1).astype(np.int32)
    names = tuple(f"class {c}" for c in range(classes))
    return SegmentationReport(names, tuple(f"p{i}" for i in range(count)), {None: None}, {None: counts}, {})


def slow_weighted(counts, times):
    """mIoU of the list in which every picture stands as often as it was drawn."""
    drawn = [counts[i] for i, n in enumerate(times) for _ in range(int(n))]
    names = range(counts.shape[2])
    return slow_miou([{k: tuple(picture[:, k]) for k in names} for picture in drawn]) if drawn else math.nan


def test_resampled_miou_equals_the_slow_oracle():
    counts = fake(0).per_image
    weights = np.random.default_rng(1).integers(0, 3, (40, 12))
    weights[0] = 0
    weights[1] = np.eye(12)[3]
    found = weighted_miou(counts, weights)
    np.testing.assert_allclose(found, [slow_weighted(counts, times) for times in weights], rtol=1e-12)
    assert np.isnan(found[0]) and not np.isnan(found[1:]).any()


def test_the_interval_is_that_of_all_draws_of_three_pictures():
    first, second = fake(1, 3, quality=0.7), fake(2, 3, quality=0.4)
    draws = [np.bincount(draw, minlength=3) for draw in itertools.product(range(3), repeat=3)]
    exact = [slow_weighted(first.per_image, n) - slow_weighted(second.per_image, n) for n in draws]
    difference, low, high = bootstrap_difference(first, second, samples=20_000)
    assert difference == pytest.approx(
        slow_weighted(first.per_image, [1] * 3) - slow_weighted(second.per_image, [1] * 3)
    )
    assert (low, high) == pytest.approx((min(exact), max(exact))), "each is drawn once in 27 times, 1/27 > 2.5 %"
    assert all(isinstance(value, float) for value in (difference, low, high)) and low < difference < high


def test_pictures_are_drawn_for_both_alike_and_the_interval_has_its_coverage():
    """The second is the first with the same mistakes everywhere: paired, their difference hardly moves."""
    first = fake(3, 40)
    worse = first.per_image.copy()
    worse[:, 0] = worse[:, 0] * 0.9
    second = SegmentationReport(first.names, first.image_ids, {None: None}, {None: worse}, {})
    difference, low, high = bootstrap_difference(first, second, samples=2000)
    alone = [slow_weighted(first.per_image, n) for n in np.random.default_rng(0).multinomial(40, [1 / 40] * 40, 200)]
    assert low <= difference <= high and high - low < 0.5 * (np.percentile(alone, 97.5) - np.percentile(alone, 2.5))
    weights = np.random.default_rng(5).multinomial(40, [1 / 40] * 40, 4000)
    spread = weighted_miou(first.per_image, weights) - weighted_miou(worse, weights)
    assert 0.93 < ((spread >= low) & (spread <= high)).mean() < 0.97


def test_the_difference_has_a_sign_a_seed_and_no_order_of_pictures():
    first, second = fake(4), fake(5, quality=0.2)
    found = bootstrap_difference(first, second, samples=300)
    assert found[0] > 0 and found == bootstrap_difference(first, second, samples=300)
    assert found[1:] != bootstrap_difference(first, second, samples=300, seed=1)[1:]
    back = bootstrap_difference(second, first, samples=300)
    assert back == pytest.approx((-found[0], -found[2], -found[1]))
    order = np.random.default_rng(0).permutation(12)
    ids = tuple(second.image_ids[i] for i in order)
    shuffled = SegmentationReport(second.names, ids, {None: None}, {None: second.per_image[order]}, {})
    assert bootstrap_difference(first, shuffled, samples=300) == found
    assert bootstrap_difference(first, first) == (0, 0, 0)
    difference, low, high = bootstrap_difference(first, second, samples=1)
    assert low == high != difference == found[0], "the pictures as they are do not count as drawn"


def test_reports_that_cannot_be_compared_are_refused():
    first, other = fake(1), fake(1)
    renamed = SegmentationReport(("x", *first.names[1:]), first.image_ids, first.matrices, first.counts, {})
    elsewhere = SegmentationReport(first.names, ("q", *first.image_ids[1:]), first.matrices, first.counts, {})
    for wrong, samples in ((renamed, 9), (elsewhere, 9), (fake(1, 11), 9), (other, 0)):
        with pytest.raises(ValueError, match="expected the same pictures and classes, and at least one of each"):
            bootstrap_difference(first, wrong, samples)
    empty = fake(1, 0)
    with pytest.raises(ValueError, match="at least one of each"):
        bootstrap_difference(empty, empty)
    void = SegmentationReport(first.names, first.image_ids, {None: None}, {None: 0 * first.per_image}, {})
    with pytest.raises(ValueError, match="got 12 pictures without a labelled pixel"):
        bootstrap_difference(void, void)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Smoke-size sets, with and without background."""
    root = tmp_path_factory.mktemp("data")
    for name in ("icon-voc20", "icon-voc21"):
        build_set(name, get_profile("smoke").data, root, progress=False)
    return root


def test_a_real_method_equals_picture_by_picture(world):
    torch.manual_seed(0)
    method, names = get_method("maskclip", load_clip()), load_vocabulary("icon-voc21")
    split = load_split(world / "icon-smoke/icon-voc21/val")
    records = [dict(split[i]) for i in range(6)]
    records[2:4] = [record | {"image": record["image"].resize((90, 128))} for record in records[2:4]]
    for window in (None, Window(64, 64, 32)):
        report = evaluate_segmentation(method, records, names, background=0.25, window=window)
        text = F.normalize(method.clip.text_embeddings(list(names.names[1:])), dim=1)
        for record, counts in zip(records, report.per_image, strict=True):
            logits = logits_of(encode_image(method, record["image"], window).scores(text), (128, 128))
            labels = np.where(logits.max(0) < 0.25, 0, logits.argmax(0) + 1)
            expected = np.bincount(labels.ravel(), minlength=21)
            assert np.abs(counts[1] - expected).sum() <= 8, "a pixel of a near tie may fall the other way"
            assert counts[2].sum() == labels.size and len(np.unique(labels)) > 2


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(world))
    monkeypatch.setitem(cli.FORWARDED, ("evaluate", "segmentation"), main.__module__)
    return lambda *words: cli.main(["evaluate", "segmentation", "--profile", "smoke", *map(str, words)])


def test_the_command_prints_a_table_and_writes_the_same_numbers(command, world, tmp_path, capsys):
    out = tmp_path / "deep" / "report.json"
    words = ("--set", "icon-voc20", "icon-voc21", "--images", 4, "--background", 0.2, 0.26, "--templates", "single")
    assert command(*words, "--out", out) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "icon-voc21: 100%" in printed.err and "4/4" in printed.err

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    written = json.loads(out.read_text(), parse_constant=refuse)
    assert (written["clip"], written["pretrained"], written["checkpoint"]) == ("ViT-Lite-8", "lite", None)
    assert list(written["sets"]) == ["icon-voc20", "icon-voc21"]
    method = get_method("maskclip", load_clip())
    for line, (name, facts) in zip(lines[2:4], written["sets"].items(), strict=True):
        records = load_split(world / f"icon-smoke/{name}/val").select(range(4))
        background = {"background": facts["background"]} if name == "icon-voc21" else {}
        scores = evaluate_segmentation(method, records, load_vocabulary(name), templates="single", **background).scores
        assert (facts["miou"], facts["pixel_accuracy"]) == pytest.approx((scores.miou, scores.pixel_accuracy), abs=1e-4)
        shown = "-" if facts["background"] is None else f"{facts['background']:g}"
        percent = f"{100 * facts['miou']:.2f} | {100 * facts['pixel_accuracy']:.2f}"
        assert line == f"| {name} | 4 | {percent} | single | 128/128/64 | {shown} |"
        assert facts["images"] == 4 and facts["pixels"] == scores.pixels and facts["absent"] == "union"
        assert facts["protocol"]["method"] == "maskclip" and facts["folder"].endswith(f"{name}/val")
        assert list(facts["iou"]) == list(load_vocabulary(name).names) and None in facts["iou"].values()
    compared = written["sets"]["icon-voc21"]["by_background"]
    assert list(compared) == ["0.2", "0.26"] and max(compared.values()) == written["sets"]["icon-voc21"]["miou"]
    assert lines[4:7] == ["", "| background of icon-voc21 | mIoU |", "| ---: | ---: |"]
    assert lines[7:] == [f"| {cut} | {100 * value:.2f} |" for cut, value in compared.items()]


def test_the_command_takes_a_folder_another_clip_and_grounding(command, world, tmp_path, capsys):
    data = shutil.copytree(world / "icon-smoke/icon-voc20/val", tmp_path / "copy")
    words = ("--data", data, "--images", 3, "--method", "clip-cam", "--clip", "ConvNeXt-Lite")
    assert command(*words, "--out", tmp_path / "free.json") == 0
    assert command(*words, "--present-only", "--out", tmp_path / "bound.json") == 0
    free, bound = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("free", "bound"))
    assert free["clip"] == "ConvNeXt-Lite" and bound["sets"]["icon-voc20"]["protocol"]["present_only"] is True
    assert bound["sets"]["icon-voc20"]["miou"] > free["sets"]["icon-voc20"]["miou"]
    assert bound["sets"]["icon-voc20"]["folder"] == str(data)
    assert capsys.readouterr().out.count("| icon-voc20 | 3 |") == 2


def test_options_reach_the_method(command, monkeypatch, tmp_path, capsys):
    class Gained(ClipCam):
        name = "gained"

        def scores(self, features, text_embeddings, gain=1.0):
            return gain * super().scores(features, text_embeddings)

    monkeypatch.setitem(METHODS, "gained", Gained)
    assert command("--method", "gained", "--images", 2, "--option", "gain=-1", "--out", tmp_path / "worst.json") == 0
    assert command("--method", "gained", "--images", 2, "--out", tmp_path / "best.json") == 0
    worst, best = (
        json.loads((tmp_path / f"{name}.json").read_text())["sets"]["icon-voc20"] for name in ("worst", "best")
    )
    assert worst["protocol"]["options"] == {"gain": -1} and best["protocol"]["options"] == {}
    assert worst["miou"] < best["miou"]


def test_backgrounds_are_listed_where_there_are_several():
    one, two = (evaluate_segmentation(Plain(), RECORDS, GROUND, background=cuts) for cuts in (-1, (-1, -0.5)))
    assert len(as_markdown({"one": one}).splitlines()) == 3
    assert as_markdown({"one": one, "two": two}).splitlines()[4:6] == ["", "| background of two | mIoU |"]


def test_the_table_shows_an_unlabelled_set_as_nan():
    empty = evaluate_segmentation(Likeness(), [], FOUR)
    with pytest.warns(UserWarning, match="no labelled pixel"):
        assert as_markdown({"toy": empty}).splitlines()[2] == "| toy | 0 | nan | nan | vild14 | 16/16/8 | - |"


def test_options_are_json_of_the_methods_own_kinds():
    kind = SimpleNamespace(name="toy", scores=lambda self, features, text, refine=True, weight=0.3, mode=None: 0)
    words = ["refine=false", "weight=1", 'mode="a=b"']
    assert parse_options(words, kind) == {"refine": False, "weight": 1, "mode": "a=b"}
    assert parse_options([], kind) == {}
    for word, message in (
        ("refine", "expected KEY=VALUE in JSON"), ("weight=high", "expected KEY=VALUE in JSON"),
        ("refine=1", "expected a value like true"), ('weight="1"', "expected a value like 0.3"),
        ("weight=true", "expected a value like 0.3"), ("wait=1", "expected one of refine, weight, mode for toy"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            parse_options([word], kind)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "mask-clip"], "did you mean 'maskclip'?"),
        (["--set", "icon-voc22"], "got vocabulary 'icon-voc22', expected one of"),
        (["--set", "icon-context59"], "build it with: ovs-lite data build"),
        (
            ["--set", "icon-voc21"],
            "got --background None, expected --background, the score of that class in icon-voc21",
        ),
        (["--background", "0.4"], "got --background [0.4], expected none in these sets"),
        (["--checkpoint", "x.safetensors"], "maskclip has no trained weights of its own"),
        (["--method", "clip-cam", "--option", "refine=false"], "expected one of none for clip-cam"),
        (["--data", "x", "--set", "icon-voc20", "icon-stuff"], "got --data and 2 sets, expected the one --set"),
        (["--images", "0"], "got --images 0, expected at least 1"),
        (["--clip", "ViT-Lite-9"], "got CLIP model 'ViT-Lite-9'"),
        (["--pretrained", "none.safetensors"], "none.safetensors: no such checkpoint"),
    ],
)
def test_mistakes_are_told_in_one_line(command, monkeypatch, capsys, words, message):
    if words[0] not in ("--clip", "--pretrained"):
        monkeypatch.setattr(segmentation_command, "load_clip", None)  # told before a model is loaded
    assert command(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith("ovs-lite: ") and message in told and told.count("\n") == 1


def test_the_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("--help")
    assert end.value.code == 0 and "examples:\n  ovs-lite evaluate segmentation --method" in capsys.readouterr().out
