"""RLE and polygons: pycocotools as oracle on good input, refusal instead of random memory on bad input."""

import random

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovs_lite.data.rle import decode_rle, encode_rle, polygons_to_mask, segmentation_to_mask


def blobs(seed, height=23, width=31):
    rng = np.random.default_rng(seed)
    return rng.random((height, width)) < rng.random()


@pytest.mark.parametrize("seed", range(20))
def test_text_and_list_runs_round_trip(seed):
    mask = blobs(seed, 1 + seed, 40 - seed)
    rle = encode_rle(mask)
    assert np.array_equal(decode_rle(rle), mask)
    assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat)))).tolist()
    runs = np.diff([0, *edges, flat.size]).tolist()
    assert np.array_equal(decode_rle({"size": list(mask.shape), "counts": runs}), mask)


def test_large_runs_agree_with_pycocotools():
    mask = np.zeros((1500, 1400), dtype=bool)
    mask[3:9, 700:702] = mask[1200:, 900:] = True
    assert np.array_equal(decode_rle(encode_rle(mask), 1500, 1400), mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [4, 5], "counts": [3, 4]}, "sum to 7"),
        ({"size": [4, 5], "counts": [3, 40]}, "sum to 43"),
        ({"size": [4, 5], "counts": []}, "sum to 0"),
        ({"size": [4, 5], "counts": [25, -5]}, "negative"),
        ({"size": [4, 5], "counts": [3.5, 16.5]}, "neither"),
        ({"size": [4, 5], "counts": None}, "neither"),
        ({"size": [4, 5], "counts": "~~~~"}, "no encoder"),
        ({"size": [4, 5], "counts": "\u00e9"}, "no encoder"),
        ({"size": [4, 5], "counts": "o"}, "ends inside"),
        ({"size": [4, 5], "counts": "ooooooooooo0"}, "no encoder"),
        ({"size": [100_000, 100_000], "counts": [10**10]}, "million"),
        ({"size": [-4, -5], "counts": [20]}, "size"),
        ({"size": [4], "counts": [4]}, "size"),
        ({"size": 20, "counts": [20]}, "size"),
        ({"counts": [20]}, "without"),
        ([1, 2], "without"),
    ],
)
def test_lying_rle_is_refused(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(rle)


def test_rle_of_another_image_is_refused():
    with pytest.raises(ValueError, match="the image's"):
        decode_rle(encode_rle(blobs(0, 4, 5)), 5, 4)


def test_mutated_rle_never_gives_anything_but_a_mask():
    rng = random.Random(0)
    original = encode_rle(blobs(3))
    refused = 0
    for _ in range(10_000):
        text = list(original["counts"])
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            choice = rng.random()
            text[place : place + 1] = "" if choice < 0.3 else chr(rng.randint(32, 126)) * (1 + (choice > 0.6))
        rle = {"size": [23, 31], "counts": "".join(text)}
        try:
            first = decode_rle(rle, 23, 31)
        except ValueError:
            refused += 1
            continue
        assert first.shape == (23, 31) and first.dtype == bool
        assert np.array_equal(first, decode_rle(rle, 23, 31))
        assert np.array_equal(first, coco_mask.decode(rle).astype(bool))
    assert 6600 < refused < 10_000


@pytest.mark.parametrize("seed", range(10))
def test_polygons_inside_the_frame_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    polygons = [(rng.random(8) * 20).tolist(), (5 + rng.random(10) * 15).tolist()]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 24, 25)))
    assert np.array_equal(polygons_to_mask(polygons, 24, 25), expected.astype(bool))


@pytest.mark.parametrize("seed", range(10))
def test_polygons_that_leave_the_frame_are_clipped(seed):
    """Oracle: draw on a canvas with a wide margin, then cut the frame out. The rim may differ by its rounding."""
    rng = np.random.default_rng(seed)
    points = rng.random((5, 2)) * 90 - 30
    polygon = points.ravel().tolist()
    canvas = coco_mask.decode(coco_mask.frPyObjects([(points + 40).ravel().tolist()], 120, 120))[..., 0]
    expected = canvas[40:70, 40:74].astype(bool)
    result = polygons_to_mask([polygon], 30, 34)
    assert (result != expected).sum() <= 0.03 * expected.size


def test_polygon_over_the_whole_frame_and_next_to_it():
    assert polygons_to_mask([[-9, -7, 18, -7, 18, 14, -9, 14]], 7, 9).all()
    assert not polygons_to_mask([[10, 8, 18, 8, 18, 14]], 7, 9).any()
    with pytest.raises(ValueError, match="single pixel"):
        segmentation_to_mask([[10, 8, 18, 8, 18, 14]], 7, 9)


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        None,
        "polygon",
        [[1, 1, 5, 5]],
        [[1, 1, 5, 5, 9]],
        [[1, 1, 5, 5, 9, 1], []],
        [[1, 1, 5, float("nan"), 9, 1]],
        [[1, 1, 5, float("inf"), 9, 1]],
        [[1, 1, 5, 10**400, 9, 1]],
        [[1, 1, 5, 41, 9, 1]],
        [[1, 1, -21, 5, 9, 1]],
        [[1, 1, 5, "5", 9, 1]],
        [[1, 1, 5, True, 9, 1]],
        [1, 1, 5, 5, 9, 1],
    ],
)
def test_bad_polygons_are_refused(polygons):
    with pytest.raises(ValueError, match="polygon"):
        segmentation_to_mask(polygons, 20, 20)


GOOD = [[2, 2, 9, 2, 9, 9, 2, 9], [12, 12, 18, 12, 18, 18]]
STRAY = {
    "a point": [20.0, 15.0],
    "two points": [1, 1, 5, 5],
    "nothing": [],
    "an odd number": [1, 1, 5, 5, 9, 1, 3],
    "NaN": [1, 1, 5, float("nan"), 9, 1],
    "far away": [1, 1, 5, 900, 9, 1],
    "text": ["1", "1", "5", "5", "9", "1"],
    "null": None,
    "pairs": [[1, 1], [5, 5], [9, 1]],
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", STRAY)
def test_a_stray_part_is_named_and_the_good_polygons_stay(kind, place):
    polygons = [*GOOD[:place], STRAY[kind], *GOOD[place:]]
    faults = []
    assert np.array_equal(segmentation_to_mask(polygons, 20, 20, faults), segmentation_to_mask(GOOD, 20, 20))
    assert len(faults) == 1 and faults[0].startswith(f"polygon {place + 1} of 3: got a polygon ")
    with pytest.raises(ValueError, match=f"polygon {place + 1} of 3"):
        segmentation_to_mask(polygons, 20, 20)
    with pytest.raises(ValueError, match="polygon 1 of 1"):
        segmentation_to_mask([STRAY[kind]], 20, 20, faults)
    assert len(faults) == 1


def test_a_flat_list_of_numbers_is_named():
    with pytest.raises(ValueError, match="flat list of numbers, expected a list of polygons"):
        segmentation_to_mask(GOOD[0], 20, 20, [])
