"""Overlays: what is painted, what is left alone, what the words say, and pictures of any size."""

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from ovs_lite.viz import alt_text, colour, colours, overlay
from ovs_lite.viz.lettering import shorten, width, wrap
from ovs_lite.viz.overlay import areas, contours, paint


def test_colours_are_stable_and_apart():
    assert colour(0) == (230, 159, 0) and colour(200) == tuple(colours(847)[200])
    assert (colours(5) == colours(300)[:5]).all() and len(np.unique(colours(847), axis=0)) == 847
    lab = rgb2lab(colours(24)[None] / 255)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(24)
    assert distance.min() > 12  # CIE76: 2.3 is just noticeable
    with pytest.raises(ValueError, match="-1"):
        colour(-1)


def test_paint_blends_inside_keeps_unlabelled_and_draws_opaque_contours():
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    labels = np.full((20, 20), -1)
    labels[5:15, 5:15] = 3
    painted = np.asarray(paint(image, labels, alpha=0.5)).astype(int)
    assert (painted[labels == -1] == 100).all()
    assert (painted[5, 5:15] == colour(3)).all() and (painted[14, 5:15] == colour(3)).all()
    assert np.abs(painted[10, 10] - (100 + np.array(colour(3))) / 2).max() <= 1
    assert (np.asarray(image) == 100).all(), "the picture handed in was changed"


def test_contours_equal_a_loop_over_neighbours():
    labels = np.random.default_rng(0).integers(-1, 3, (7, 9)).repeat(3, 0)
    expected = np.zeros(labels.shape, bool)
    for (y, x), label in np.ndenumerate(labels):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            inside = 0 <= y + dy < labels.shape[0] and 0 <= x + dx < labels.shape[1]
            expected[y, x] |= label >= 0 and inside and labels[y + dy, x + dx] != label
    assert (contours(labels) == expected).all()
    assert (contours(labels, 2) >= expected).all() and not contours(np.zeros((5, 5), int), 2).any()


def test_areas_and_alt_text_are_sorted_and_add_up():
    labels = np.array([[1, 1, 1, 0], [1, 1, -1, 2]])
    assert areas(labels, ["cat", "grass", "sky"]) == [
        (1, "grass", 0.625), (0, "cat", 0.125), (2, "sky", 0.125), (-1, "unlabelled", 0.125),
    ]  # fmt: skip
    assert alt_text(labels, ["cat", "grass", "sky"]) == "grass 62 %, cat 12 %, sky 12 %, unlabelled 12 %"
    rare = np.zeros((50, 50), int)
    rare[0, 0] = 1
    assert alt_text(rare, ["a", "b"]) == "a 100 %, b <1 %"


def test_a_name_is_written_on_its_region_and_the_legend_goes_underneath():
    image, labels = Image.new("RGB", (200, 100)), np.zeros((100, 200), int)
    plain = paint(image, labels)
    named = overlay(image, labels, ["cat"], legend=False)
    assert plain.size == named.size == (200, 100) and plain.tobytes() != named.tobytes()
    changed = np.argwhere((np.asarray(plain) != np.asarray(named)).any(-1))
    assert np.abs(changed.mean(0) - (50, 100)).max() < 6, "the name is not in the middle of its region"
    with_legend = overlay(image, labels, ["cat"])
    assert with_legend.width == 200 and with_legend.height > 100
    assert with_legend.crop((0, 0, 200, 100)).tobytes() == named.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (8000, 3), (3, 4000), (128, 128)])
@pytest.mark.parametrize("fill", [-1, 0, 2])
def test_any_size_and_any_single_label_works(size, fill):
    names = ["cat", "a name far too long for the legend of a picture that is hardly wider " * 3, "two\nlines"]
    labels = np.full(size[::-1], fill)
    made = overlay(Image.new("RGB", size, "white"), labels, names)
    assert made.mode == "RGB" and made.width >= size[0] and made.height > size[1]


def test_no_names_and_all_unlabelled_is_the_picture():
    image = Image.new("L", (30, 20), 77)
    assert overlay(image, np.full((20, 30), -1), [], legend=False).tobytes() == image.convert("RGB").tobytes()


def test_labels_that_do_not_fit_are_refused():
    image = Image.new("RGB", (4, 3))
    for labels in (np.zeros((4, 3), int), np.zeros((3, 4)), np.zeros((1, 3, 4), int)):
        with pytest.raises(ValueError, match=r"\(3, 4\)"):
            overlay(image, labels, ["a"])
    for label in (1, -2):
        with pytest.raises(ValueError, match="-1..0"):
            overlay(image, np.full((3, 4), label), ["a"])
    for alpha in (1.5, float("nan"), "half"):
        with pytest.raises(ValueError, match="alpha"):
            overlay(image, np.zeros((3, 4), int), ["a"], alpha=alpha)


def test_text_fits_its_limit():
    text = "a red cat beside two very large umbrellas"
    assert width(shorten(text, 12, 80), 12) <= 80 and shorten(text, 12, 9999) == text
    lines = wrap(text, 12, 90, 3)
    assert len(lines) == 3 and all(width(line, 12) <= 90 for line in lines)
    assert " ".join(wrap(text, 12, 90, 20)) == text and wrap("", 12, 90, 3) == []
