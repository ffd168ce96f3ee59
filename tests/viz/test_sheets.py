"""Contact sheets and sheets of masks: layout, captions, segments, refusals."""

import numpy as np
import pytest
from PIL import Image

from kit.images import noise
from ovs_lite.viz import contact_sheet, mask_sheet


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (32 + 8 * i, 24), (20 * i, 0, 255 - 20 * i)) for i in range(count)]


def test_every_picture_has_a_cell_of_its_own():
    sheet = contact_sheet(pictures(7), columns=3, side=40)
    assert sheet.size == (3 * 46 + 6, 3 * 46 + 6)
    pixels = np.asarray(sheet).reshape(-1, 3)
    for image in pictures(7):
        assert (pixels == image.getpixel((0, 0))).all(1).any()


def test_captions_and_segments_make_room_below():
    plain, segments = contact_sheet(pictures(2)), [np.ones((24, 32), np.int32), None]
    assert plain.width == 2 * 166 + 6, "fewer pictures than columns take no empty cells"
    both = contact_sheet(pictures(2), captions=["a cat", "a very long caption " * 20], segments=segments)
    assert both.width == plain.width and both.height > 2 * plain.height - 20
    void = contact_sheet(pictures(2), segments=[np.zeros((24, 32), np.int32), None])
    above, below = void.crop((6, 6, 166, 166)), void.crop((6, 169, 166, 329))
    assert above.tobytes() == below.tobytes(), "void is transparent"
    assert void.tobytes() != contact_sheet(pictures(2), segments=segments).tobytes()


def test_a_tiny_and_a_huge_picture_fit():
    assert contact_sheet([Image.new("L", (1, 1)), Image.new("RGB", (8000, 2))]).mode == "RGB"


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="0 images"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 captions for 2"):
        contact_sheet(pictures(2), captions=["one"])
    with pytest.raises(ValueError, match=r"\(24, 32\)"):
        contact_sheet(pictures(1), segments=[np.ones((32, 24), int)])


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, np.float64])
def test_what_a_mask_leaves_out_is_dark_and_the_rest_as_it_is(kind):
    picture, masks = Image.fromarray(noise(20, 20)), np.random.default_rng(1).random((3, 20, 20)) < 0.5
    masks[1] = True
    sheet = np.asarray(mask_sheet(picture, masks.astype(kind), columns=2, side=20))
    assert sheet.shape == (2 * 26 + 6, 2 * 26 + 6, 3)
    for number, mask in enumerate(masks):
        top, left = 6 + number // 2 * 26, 6 + number % 2 * 26
        shown, pixels = sheet[top : top + 20, left : left + 20], np.asarray(picture)
        assert (shown[mask] == pixels[mask]).all()
        assert (abs(shown[~mask] - 0.15 * pixels[~mask]) <= 1).all()


def test_soft_masks_darken_by_degrees():
    white, half = Image.new("RGB", (4, 2), (200, 200, 200)), np.linspace(0, 1, 8).reshape(1, 2, 4)
    values = np.asarray(mask_sheet(white, half, side=4))[7:9, 6:10, 0].ravel()
    assert values.tolist() == [int(200 * (0.15 + 0.85 * share)) for share in half.ravel().astype(np.float32)]


def test_a_mask_sheet_keeps_the_pictures_proportions_and_has_titles():
    masks = np.ones((20, 30, 60), bool)
    sheet = mask_sheet(Image.new("L", (60, 30), 99), masks)
    assert sheet.mode == "RGB" and sheet.size == (16 * 62 + 6, 2 * 62 + 6)
    assert np.asarray(sheet)[6:62, 6:62, 0].tolist().count([99] * 56) == 28, "half as high as wide"
    titled = mask_sheet(Image.fromarray(noise(30, 60)), masks, [f"no. {number}" for number in range(20)])
    assert titled.width == sheet.width and titled.height > sheet.height
    with pytest.raises(ValueError, match="1 captions for 20"):
        mask_sheet(Image.fromarray(noise(30, 60)), masks, ["one"])


@pytest.mark.parametrize("shape", [(0, 30, 60), (2, 60, 30), (30, 60), (2, 30, 61), (1, 30, 60, 3)])
def test_masks_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(N, 30, 60\) with N >= 1") as error:
        mask_sheet(Image.fromarray(noise(30, 60)), np.ones(shape, bool))
    assert str(shape) in str(error.value)
