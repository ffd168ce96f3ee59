"""Sliding windows against a loop over pixels, resizing, enlarging, the background rule, and what has no answer."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite.clip import load_clip
from ovs_lite.inference import (
    Window,
    enlarge,
    label_pixels,
    resized_shape,
    segment_scores,
    sliding_scores,
    window_starts,
)
from ovs_lite.methods import Method, get_method


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return load_clip("ViT-Lite-8", pretrained=None)


class Echo(Method):
    """Scores are the colour channels plus the mean of the window, so each window has an opinion of its own."""

    name = "echo"

    def predict(self, images, text_embeddings, gain=1.0):
        self.shapes = [*getattr(self, "shapes", []), tuple(images.shape)]
        return gain * (images + images.mean((2, 3), keepdim=True))[:, : len(text_embeddings)]


def picture(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def slow_sliding(image, count, side, stride):
    """Every pixel averages the windows that hold it; windows stand on a grid, the last ones at the border."""
    height, width = image.shape[-2:]
    grids = []
    for length in (height, width):
        starts = [0]
        while starts[-1] + side < length:
            starts.append(min(starts[-1] + stride, length - side))
        grids.append(starts)
    result = torch.zeros(count, height, width)
    for y, x in itertools.product(range(height), range(width)):
        opinions = []
        for top, left in itertools.product(*grids):
            if top <= y < top + side and left <= x < left + side:
                mean = image[0, :count, top : top + side, left : left + side].mean((1, 2))
                opinions.append(image[0, :count, y, x] + mean)
        result[:, y, x] = torch.stack(opinions).mean(0)
    return result


@pytest.mark.parametrize("height, width", [(16, 16), (16, 40), (23, 17), (5, 21), (3, 4), (1, 33)])
@pytest.mark.parametrize("side, stride", [(16, 8), (8, 8), (7, 3), (1, 1)])
def test_overlapping_windows_are_averaged(height, width, side, stride, clip):
    found = sliding_scores(Echo(clip), picture(height, width), torch.zeros(2, 128), Window(16, side, stride))
    assert found.shape == (1, 2, height, width)
    expected = slow_sliding(picture(height, width), 2, side, stride)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 31, 100])
@pytest.mark.parametrize("side, stride", [(1, 1), (8, 1), (8, 4), (8, 8), (9, 4), (9, 8)])
def test_windows_cover_everything_and_end_at_the_border(length, side, stride):
    starts = window_starts(length, side, stride)
    assert starts[0] == 0 and starts == sorted(set(starts)) and max(starts) == max(0, length - side)
    assert all(0 < second - first <= stride for first, second in itertools.pairwise(starts))
    assert len(starts) == 1 + max(0, -(-(length - side) // stride)), "no more windows than needed"


@pytest.mark.parametrize("height, width", [(64, 64), (50, 64), (128, 100)])
def test_one_window_over_the_whole_picture_is_a_single_pass(height, width, clip):
    method, text = get_method("maskclip", clip), F.normalize(torch.eye(3, 128), dim=1)
    found = sliding_scores(method, picture(height, width), text, Window(128, 128, 64))
    assert (found == method.predict(picture(height, width), text)).all()


def test_windows_are_cut_at_their_size_and_options_reach_the_method(clip):
    method = Echo(clip)
    plain = sliding_scores(method, picture(40, 24), torch.zeros(1, 128), Window(24, 16, 8))
    assert set(method.shapes) == {(1, 3, 16, 16)} and len(method.shapes) == 4 * 2
    tripled = sliding_scores(method, picture(40, 24), torch.zeros(1, 128), Window(24, 16, 8), gain=3.0)
    torch.testing.assert_close(tripled, 3 * plain)


@pytest.mark.parametrize(
    "height, width, expected",
    [(128, 128, (128, 128)), (480, 640, (128, 171)), (640, 480, (171, 128)), (10, 10, (128, 128)),
     (100, 1600, (128, 2048)), (1600, 50, (2048, 64)), (1, 10_000, (1, 2048)), (1, 1, (128, 128))],
)  # fmt: skip
def test_the_short_side_is_resized_and_the_long_side_bounded(height, width, expected):
    assert resized_shape(height, width, Window(128, 128, 64)) == expected


def test_the_protocol_of_tcl_for_every_native_size():
    assert Window.for_clip(224) == Window(448, 448, 224, 2048)
    assert Window.for_clip(64) == Window(128, 128, 64, 2048)
    assert Window.for_clip(1500).longest == 3000


@pytest.mark.parametrize("window", [None, Window(32, 16, 8)])
def test_a_picture_is_resized_normalised_and_slid_over(window, clip):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8))
    used = window or Window(128, 128, 64)
    height, width = (used.short_side, round(used.short_side * 1.5))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = (torch.from_numpy(resized).permute(2, 0, 1) - clip.mean) / clip.std
    method, text = get_method("clip-cam", clip), F.normalize(torch.eye(3, 128), dim=1)
    found = segment_scores(method, image, text, window)
    assert found.shape == (1, 3, height, width)
    torch.testing.assert_close(found, sliding_scores(method, pixels[None], text, used), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("height, width", [(24, 32), (7, 50), (1, 1), (12, 16)])
def test_enlarging_class_by_class_equals_all_at_once(height, width):
    scores = torch.randn(1, 5, 12, 16, generator=torch.Generator().manual_seed(0))
    found = enlarge(scores, height, width)
    assert found.shape == (5, height, width) and found.dtype == np.float32
    expected = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_labels_are_the_best_class_or_background():
    logits = np.array([[[0.9, 0.1, 0.3]], [[0.2, 0.2, 0.3]]], np.float32)
    labels = label_pixels(logits)
    assert labels.tolist() == [[0, 1, 0]] and labels.dtype == np.int64
    assert label_pixels(logits, 0.25).tolist() == [[0, -1, 0]]
    assert label_pixels(logits, float(logits[0, 0, 2])).tolist() == [[0, -1, 0]], "background must beat the class"
    assert label_pixels(logits, 1.0).tolist() == [[-1, -1, -1]] and label_pixels(logits, 0.0).tolist() == [[0, 1, 0]]
    assert label_pixels(logits[:1]).tolist() == [[0, 0, 0]]
    slow = np.random.default_rng(0).normal(size=(4, 6, 7))
    for y, x in itertools.product(range(6), range(7)):
        best = max(range(4), key=lambda k: slow[k, y, x])
        assert label_pixels(slow, 0.5)[y, x] == (best if slow[best, y, x] >= 0.5 else -1)


@pytest.mark.parametrize("sizes", [(16, 8, 9), (16, 8, 0), (0, 8, 8), (16, 0, 0), (16, 8, 8, 0), (16, 8, -1)])
def test_windows_with_gaps_or_without_size_are_refused(sizes):
    with pytest.raises(ValueError, match="expected positive sizes and a stride of at most the window's side"):
        Window(*sizes)


def test_nothing_to_score_is_a_clear_error(clip):
    method, text, window = Echo(clip), torch.zeros(2, 128), Window(16, 16, 8)
    for image, names in ((picture(8, 8), text[:0]), (picture(0, 8), text), (picture(8, 8)[:0], text)):
        with pytest.raises(ValueError, match=r"got images .* and text .*, expected \(B, 3, h, w\) and \(K, D\)"):
            sliding_scores(method, image, names, window)
    with pytest.raises(ValueError, match="0 x 5 pixels, expected at least one"):
        segment_scores(method, Image.new("RGB", (5, 0)), text)
    with pytest.raises(ValueError, match=r"expected \(B, 3, h, w\) and \(K, D\)"):
        segment_scores(method, Image.new("RGB", (5, 5)), text[:0])
    for logits in (np.zeros((0, 4, 5)), np.zeros((4, 5))):
        with pytest.raises(ValueError, match=r"expected \(K, H, W\) with K >= 1"):
            label_pixels(logits)
    assert label_pixels(np.zeros((2, 0, 5))).shape == (0, 5)
