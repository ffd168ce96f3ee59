"""Sliding windows against a loop over pixels, resizing, the best class of a pixel, and what has no answer."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from kit.clips import random_clip
from ovs_lite.inference import (
    PartedScores,
    Window,
    best_classes,
    encode_image,
    encode_windows,
    resize_image,
    resized_classes,
    resized_shape,
    scores_within,
    sliding_scores,
    window_starts,
)
from ovs_lite.methods import Method, get_method


@pytest.fixture(scope="module")
def clip():
    return random_clip()


class Echo(Method):
    """Scores are the colour channels plus the mean of the window, so each window has an opinion of its own."""

    name = "echo"

    def encode(self, images):
        self.shapes = [*getattr(self, "shapes", []), tuple(images.shape)]
        return images + images.mean((2, 3), keepdim=True)

    def scores(self, features, text_embeddings, gain=1.0):
        return gain * features[:, : len(text_embeddings)]


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


@pytest.mark.parametrize("size", [(16, 16), (23, 40), (5, 9)])
def test_features_are_encoded_once_and_scored_for_any_texts_and_options(size, clip):
    method, images, window = Echo(clip), picture(*size), Window(16, 16, 8)
    features = encode_windows(method, images, window)
    windows = len(method.shapes)
    assert windows == len(list(features.windows))
    for count, gain in ((2, 1.0), (1, 1.0), (3, 2.5)):
        text = torch.zeros(count, 128)
        expected = sliding_scores(Echo(clip), images, text, window, gain=gain)
        assert torch.equal(features.scores(text, gain=gain), expected)
    assert len(method.shapes) == windows


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
     (100, 1600, (128, 2048)), (1600, 50, (2048, 64)), (1, 10_000, (1, 2048)), (1, 1, (128, 128)),
     (64, 65, (128, 130)), (256, 257, (128, 129))],  # half a pixel more is one more, as in the released code
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
    found = encode_image(method, image, window).scores(text)
    assert found.shape == (1, 3, height, width)
    torch.testing.assert_close(found, sliding_scores(method, pixels[None], text, used), atol=1e-5, rtol=1e-4)


def slow_bilinear(channel, height, width):
    """Four neighbours of every pixel's centre, whatever the reduction, as OpenCV's INTER_LINEAR."""
    result = np.empty((height, width))
    rows, columns = channel.shape
    for y, x in itertools.product(range(height), range(width)):
        v, u = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
        v, u = min(max(v, 0), rows - 1), min(max(u, 0), columns - 1)
        top, left = int(v), int(u)
        low, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        upper = channel[top, left] * (left + 1 - u) + channel[top, right] * (u - left)
        lower = channel[low, left] * (left + 1 - u) + channel[low, right] * (u - left)
        result[y, x] = upper * (top + 1 - v) + lower * (v - top)
    return result


@pytest.mark.parametrize("size", [(40, 60), (60, 45), (9, 7)])
def test_images_are_resized_with_or_without_antialiasing(size):
    """The released evaluations resize without; here with, unless the window says otherwise."""
    values = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    image, shape = Image.fromarray(values), resized_shape(*size, Window(16, 16, 8))
    found = resize_image(image, Window(16, 16, 8, resize="bilinear"))
    assert found.shape == (3, *shape) and found.dtype == torch.uint8
    expected = np.stack([slow_bilinear(values[..., c].astype(float), *shape) for c in range(3)])
    assert np.abs(found.numpy() - expected).max() <= 1, "rounded to whole numbers"
    smooth = resize_image(image, Window(16, 16, 8))
    assert torch.equal(smooth, resize_image(image, Window(16, 16, 8, resize="antialias")))
    assert (smooth.float().std() < 0.8 * found.float().std()) == (min(size) > 16), "averaging evens noise out"
    with pytest.raises(ValueError, match="resize='bicubic', expected 'antialias' or 'bilinear'"):
        Window(16, 16, 8, resize="bicubic")


@pytest.mark.parametrize("height, width", [(24, 32), (7, 50), (1, 1), (12, 16)])
def test_resizing_class_by_class_equals_all_at_once(height, width):
    scores = torch.randn(1, 5, 12, 16, generator=torch.Generator().manual_seed(0))
    found = torch.cat(list(resized_classes(scores, (height, width)))).numpy()
    assert found.shape == (5, height, width) and found.dtype == np.float32
    expected = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(6, 7), (12, 9), (3, 3)])
def test_the_best_class_of_every_pixel_equals_a_loop(size):
    scores = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    scores[:, 3] = scores[:, 1]  # of equals, the first
    present = np.array([[True, False, True, False], [True, True, True, True]])
    full = torch.stack(list(resized_classes(scores, size)), 1)
    for kept in (None, present):
        best, labels = best_classes(scores, size, kept)
        assert best.shape == labels.shape == (2, *size)
        for b, y, x in itertools.product(range(2), *map(range, size)):
            competing = [k for k in range(4) if kept is None or kept[b, k]]
            first = max(competing, key=lambda k: full[b, k, y, x])
            assert (int(labels[b, y, x]), float(best[b, y, x])) == (first, full[b, first, y, x])


@pytest.mark.parametrize("sizes", [(16, 8, 9), (16, 8, 0), (0, 8, 8), (16, 0, 0), (16, 8, 8, 0), (16, 8, -1)])
def test_windows_with_gaps_or_without_size_are_refused(sizes):
    with pytest.raises(ValueError, match="expected positive sizes and a stride of at most the window's side"):
        Window(*sizes)


def test_nothing_to_score_is_a_clear_error(clip):
    method, text, window = Echo(clip), torch.zeros(2, 128), Window(16, 16, 8)
    for images in (picture(0, 8), picture(8, 8)[:0]):
        with pytest.raises(ValueError, match=r"got images .*, expected \(B, 3, h, w\) with at least one pixel"):
            sliding_scores(method, images, text, window)
    for features in (encode_image(method, Image.new("RGB", (5, 5))), encode_windows(method, picture(8, 8), window)):
        with pytest.raises(ValueError, match=r"got text \(0, 128\), expected \(K, D\) with at least one class"):
            features.scores(text[:0])
    with pytest.raises(ValueError, match="0 x 5 pixels, expected at least one"):
        encode_image(method, Image.new("RGB", (5, 0)))


@pytest.mark.parametrize("name", ["clip-cam", "maskclip"])
@pytest.mark.parametrize("present", [False, True])
def test_scores_in_parts_choose_the_same_classes(name, present, clip):
    """With windows that overlap; the parts are of 3 classes, the last one of 2. Every method: tests/methods."""
    method, images = get_method(name, clip).eval(), torch.cat([picture(30, 40), picture(30, 40, 1)])
    text = F.normalize(torch.randn(11, clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=1)
    window = Window(24, 24, 16)
    whole = sliding_scores(method, images, text, window)
    parted = scores_within(method, images, text, window, 7 * images[:, 0].numel())
    assert isinstance(parted, PartedScores)
    assert [part.shape[1] for part in parted.parts()] == [3, 3, 3, 2]
    torch.testing.assert_close(torch.cat(list(parted.parts()), 1), whole, atol=1e-5, rtol=1e-5)
    kept = np.random.default_rng(0).random((2, 11)) < 0.5 if present else None
    for size in ((30, 40), (50, 61)):
        for _ in range(2):  # a second reading gives the same
            best, labels = best_classes(parted, size, kept)
            expected = best_classes(whole, size, kept)
            torch.testing.assert_close(best, expected[0], atol=1e-5, rtol=1e-5)
            assert (labels == expected[1]).double().mean() > 0.999, "but for ties within rounding"


@pytest.mark.parametrize("options", [{"prompt_denoising": 0.5}, {"key_smoothing": "paper"}])
def test_classes_that_change_each_other_are_scored_together(options, clip):
    method, images = get_method("maskclip", clip).eval(), picture(24, 24)
    text = F.normalize(torch.randn(9, clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=1)
    window = Window(24, 24, 16)
    assert isinstance(scores_within(method, images, text, window, 1), PartedScores)
    found = scores_within(method, images, text, window, 1, **options)
    assert torch.equal(found, sliding_scores(method, images, text, window, **options))
    assert isinstance(scores_within(method, images, text, window, 9 * 24 * 24), torch.Tensor), "everything fits"
    assert not Echo(clip).scores_each_class_alone(), "unless a method knows better"
