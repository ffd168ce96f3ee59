"""mIoU of a method on a set: against one image at a time, one class and one Boolean mask at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from kit.colour_methods import RECORDS, SLIDE, WHOLE, Likeness, Plain
from kit.oracles.segmentation import as_counts, category_map, logits_of, slow_images, slow_miou
from kit.records import by_name, painted_noise
from kit.vocabularies import FOUR, GROUND, RGB
from ovs_lite.clip import load_clip
from ovs_lite.config import get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import segmentation
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.iconworld.build import build_set
from ovs_lite.inference import Window, encode_image
from ovs_lite.methods import get_method


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("window", [SLIDE, WHOLE, Window(8, 8, 4), Window(9, 9, 9), Window(7, 3, 2)])
def test_batches_equal_picture_by_picture_exactly(batch, window):
    method, world = Likeness(), FOUR
    report = evaluate_segmentation(method, iter(RECORDS), world, window=window, batch=batch, gain=1.5)
    expected = slow_images(method, RECORDS, world, window, gain=1.5)
    assert report.per_image.tolist() == as_counts(expected)
    assert report.scores.miou == pytest.approx(slow_miou(as_counts(expected))[0], rel=1e-12)
    assert report.image_ids == tuple(record["image_id"] for record in RECORDS) and report.images == len(RECORDS)
    assert len({counts["white"] for counts in expected}) > 5, "the toy must disagree with the truth in its own ways"


def test_every_pixel_of_a_hand_made_pair_of_pictures():
    records = [
        by_name("a", ["rrgg", "rrbb"], [[0, 0, 1, 1], [0, 1, 1, -2]]),
        by_name("b", ["gr", "gg", "bb"], [[1, 1], [-1, 1], [2, 0]]),
    ]
    report = evaluate_segmentation(Plain(), records, RGB, window=Window(2, 4, 2))
    assert report.per_image.tolist() == [[[3, 2, 0], [4, 2, 1], [3, 4, 0]], [[0, 2, 1], [1, 2, 2], [1, 3, 1]]]
    assert report.scores.iou.tolist() == [3 / 6, 4 / 7, 1 / 3]
    assert (report.scores.pixels, report.scores.ignored) == (12, 2) and report.scores.pixel_accuracy == 8 / 12
    assert (report.names, report.background, report.by_background) == (RGB.names, None, {})


def test_a_class_that_is_nowhere_is_left_out_and_one_that_is_only_predicted_counts_as_zero():
    records = [by_name("a", ["rrgg"], [[0, 0, 0, 0]])]
    report = evaluate_segmentation(Plain(), records, RGB, window=Window(1, 4, 4))
    assert report.scores.miou == pytest.approx((0.5 + 0) / 2) and report.scores.classes_counted == 2
    assert np.isnan(report.scores.iou[2])


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
    small = painted_noise(5, 9, 12)
    record = small | {"image": np.asarray(Image.fromarray(small["image"]).resize((30, 21)))}
    report = evaluate_segmentation(Likeness(), [record, small], FOUR, window=SLIDE)
    assert report.scores.pixels == 2 * (category_map(small) >= 0).sum()
    assert report.per_image.tolist() == as_counts(slow_images(Likeness(), [record, small], FOUR, SLIDE))


def test_half_precision_of_a_method_changes_nothing_but_the_scores_themselves():
    class Half(Likeness):
        def scores(self, *given):
            return super().scores(*given).half()

    for window in (SLIDE, WHOLE):
        report = evaluate_segmentation(Half(), RECORDS, FOUR, window=window)
        assert report.per_image.tolist() == as_counts(slow_images(Half(), RECORDS, FOUR, window))


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


def test_records_and_scores_that_cannot_be_counted_are_named():
    class Broken(Likeness):
        def scores(self, images, text_embeddings):
            scores = super().scores(images, text_embeddings)
            scores[-1, 1, 2, 3] = torch.nan
            return scores

    bare = RECORDS[0] | {"segments": None, "segments_info": None}
    for records, message in (
        ([bare], "record 'noise-0' has no segments"),
        ([painted_noise(1, 8, 8, 6)], r"'noise-1' has categories \[4, 5\], expected -1..3 of 'toy'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_segmentation(Likeness(), records, GROUND, background=0.4)
    for window in (SLIDE, WHOLE):
        with pytest.raises(ValueError, match="scores of likeness that are NaN in noise-0, noise-1, expected numbers"):
            evaluate_segmentation(Broken(), RECORDS[:2], FOUR, window=window)
    with pytest.raises(ValueError, match="got batch=0, expected at least 1"):
        evaluate_segmentation(Likeness(), RECORDS, FOUR, batch=0)


def test_a_real_method_equals_picture_by_picture(tmp_path):
    build_set("icon-voc21", get_profile("smoke").data, tmp_path, progress=False)
    torch.manual_seed(0)
    method, names = get_method("maskclip", load_clip()), load_vocabulary("icon-voc21")
    split = load_split(tmp_path / "icon-smoke/icon-voc21/val")
    records = [dict(split[i]) for i in range(6)]
    records[2:4] = [record | {"image": record["image"].resize((90, 128))} for record in records[2:4]]
    for window in (None, Window(64, 64, 32)):
        report = evaluate_segmentation(method, records, names, background=0.15, window=window)
        text = F.normalize(method.clip.text_embeddings(list(names.names[1:])), dim=1)
        kinds = set()
        for record, counts in zip(records, report.per_image, strict=True):
            logits = logits_of(encode_image(method, record["image"], window).scores(text), (128, 128))
            labels = np.where(logits.max(0) < 0.15, 0, logits.argmax(0) + 1)
            expected = np.bincount(labels.ravel(), minlength=21)
            assert np.abs(counts[1] - expected).sum() <= 8, "a pixel of a near tie may fall the other way"
            assert counts[2].sum() == labels.size
            kinds |= set(labels.ravel().tolist())
        assert len(kinds) > 2
