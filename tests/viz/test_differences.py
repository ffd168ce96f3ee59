"""Difference maps: every pixel by a loop, and the picture says who is right where."""

import numpy as np
import pytest
from PIL import Image

from ovs_lite.viz.differences import AGREED, difference_map, differences


def test_every_pixel_equals_a_loop():
    first, second, target = np.random.default_rng(0).integers(-1, 4, (3, 9, 7))
    found, plain = differences(first, second, target), differences(first, second)
    for place in np.ndindex(first.shape):
        a, b, t = first[place], second[place], target[place]
        expected = AGREED if a == b or t < 0 else 0 if a == t else 1 if b == t else 2
        assert found[place] == expected and plain[place] == (AGREED if a == b else 0)
    assert {*found.ravel()} == {-1, 0, 1, 2}
    swapped = differences(second, first, target)
    assert (np.isin(found, (0, 1)) == np.isin(swapped, (0, 1))).all() and ((found == 0) == (swapped == 1)).all()
    assert differences(first[:0], second[:0]).shape == (0, 7)
    with pytest.raises(ValueError, match="all of one size"):
        differences(first, second[:3])


def test_the_picture_is_untouched_where_both_agree():
    image, same = Image.new("RGB", (400, 300), (10, 20, 30)), np.zeros((300, 400), int)
    other = same.copy()
    other[:, 300:] = 1
    drawn = np.asarray(difference_map(image, same, other, ("TCL", "OpenSeg"), other))[:300]
    assert (drawn[:, :100] == (10, 20, 30)).all() and not (drawn[:, 305:] == (10, 20, 30)).all(2).any()
    assert difference_map(image, same, other, ("TCL", "OpenSeg")).height > 300, "the legend"
    small = difference_map(image.resize((40, 30)), same[:30, :40], other[:30, -40:], ("TCL", "OpenSeg"))
    assert small.width == 360 and small.height > 270
