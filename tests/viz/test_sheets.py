"""Contact sheets: layout, captions, segments, refusals."""

import numpy as np
import pytest
from PIL import Image

from ovs_lite.viz import contact_sheet


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
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 captions for 2"):
        contact_sheet(pictures(2), captions=["one"])
    with pytest.raises(ValueError, match=r"\(24, 32\)"):
        contact_sheet(pictures(1), segments=[np.ones((32, 24), int)])
