"""Captions that are swapped between images: how many, nobody keeps their own, nothing is lost, the seed decides."""

import pytest

from ovs_lite.data.mismatch import mismatched_captions

CAPTIONS = [[f"caption {number}"] for number in range(10)]


@pytest.mark.parametrize("share, count", [(0, 0), (0.04, 0), (0.1, 2), (0.3, 3), (1, 10)])
def test_so_many_images_have_the_captions_of_others(share, count):
    found, swapped = mismatched_captions(CAPTIONS, share, seed=3)
    assert swapped.sum() == count
    assert [(a == b) for a, b in zip(found, CAPTIONS, strict=True)] == [not one for one in swapped]
    assert sorted(found) == CAPTIONS, "nothing is lost"


def test_the_seed_decides():
    assert mismatched_captions(CAPTIONS, 0.5, 1)[0] == mismatched_captions(CAPTIONS, 0.5, 1)[0]
    assert mismatched_captions(CAPTIONS, 0.5, 1)[0] != mismatched_captions(CAPTIONS, 0.5, 2)[0]
    given = [list(some) for some in CAPTIONS]
    mismatched_captions(given, 1.0)[0][0].append("more")
    assert given == CAPTIONS, "what was given stays as it is"


def test_what_cannot_be_swapped_is_refused():
    assert mismatched_captions([], 0.5)[0] == []
    with pytest.raises(ValueError, match="got a share of 1.5, expected 0..1"):
        mismatched_captions(CAPTIONS, 1.5)
    with pytest.raises(ValueError, match="got 1 image, expected at least 2"):
        mismatched_captions(CAPTIONS[:1], 1.0)
