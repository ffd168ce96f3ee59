"""Captions of mirrored images."""

import pytest

from ovs_lite.data.captions import swap_sides


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("left and right", "right and left"),
        ("LEFT, Right; left.", "RIGHT, Left; right."),
        ("a bright leftover on the copyright", "a bright leftover on the copyright"),
        ("nothing here", "nothing here"),
    ],
)
def test_whole_words_change_sides(caption, other):
    assert swap_sides(caption) == other and swap_sides(other) == caption
