"""COCO masks, RLE and polygons, decoded only after they are checked.

pycocotools trusts its input: run lengths that sum to less than H*W come back as random heap memory, a size of
100000 x 100000 is allocated. Annotations are other people's files, so every run length is looked at first.

Legend: H, W pixels. RLE runs go down the columns, starting with the number of zeros.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ovs_lite.data.images import check_pixels

MAX_CHARS_PER_RUN = 7  # 7 * 5 bits hold more than any 32-bit run length


def encode_rle(mask: np.ndarray) -> dict:
    """(H, W) bool -> COCO RLE {"size": [H, W], "counts": str}."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in mask.shape], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: Any, height: int | None = None, width: int | None = None) -> np.ndarray:
    """COCO RLE, counts as text, bytes or list of integers -> (H, W) bool.

    height, width: the image's size where it is known; a different size in the RLE is an error. Raises ValueError.
    """
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise ValueError("got an RLE without size and counts")
    size = list(rle["size"]) if isinstance(rle["size"], list | tuple) else []
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(f"got RLE size {rle['size']!r}, expected [height, width]")
    if height is not None and size != [height, width]:
        raise ValueError(f"got RLE size {size}, expected the image's [{height}, {width}]")
    check_pixels(size[1], size[0], "an RLE")
    runs = _runs(rle["counts"])
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"got RLE run lengths that sum to {sum(runs)}, expected {size[0]} x {size[1]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def _runs(counts: Any) -> list[int]:
    if isinstance(counts, str | bytes):
        runs = _text_runs(counts.encode("utf-8") if isinstance(counts, str) else counts)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        raise ValueError("got RLE counts that are neither text nor a list of integers")
    if any(run < 0 for run in runs):
        raise ValueError("got a negative RLE run length")
    return runs


def _text_runs(text: bytes) -> list[int]:
    """COCO's text form: 5 bits a character from '0' on, bit 32 = more follow, from the fourth run on a difference."""
    runs: list[int] = []
    value = position = 0
    for byte in text:
        char = byte - 48
        if not 0 <= char < 64 or position == MAX_CHARS_PER_RUN:
            raise ValueError("got RLE text with characters that no encoder writes")
        value |= (char & 31) << (5 * position)
        position += 1
        if not char & 32:
            value -= (1 << (5 * position)) if char & 16 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = position = 0
    if position:
        raise ValueError("got RLE text that ends inside a number")
    return runs


def polygons_to_mask(polygons: Any, height: int, width: int) -> np.ndarray:
    """COCO polygons, a list of [x0, y0, x1, y1, ...] in pixels -> (H, W) bool union, clipped to the frame.

    Raises ValueError for an empty list, fewer than three points, an odd number of values, NaN or infinity.
    """
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("got no polygon")
    inside = [_clip(_points(polygon), height, width) for polygon in polygons]
    flat = [[value for point in points for value in point] for points in inside if len(points) >= 3]
    if not flat:
        return np.zeros((height, width), dtype=bool)
    return decode_rle(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))


def _points(polygon: Any) -> list[tuple[float, float]]:
    if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
        raise ValueError("got a polygon that is not a list of numbers")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"got a polygon of {len(polygon)} values, expected x, y of three points or more")
    if not all(abs(value) < 1e9 for value in polygon):  # false for NaN too
        raise ValueError("got a polygon with NaN, infinite or absurd coordinates")
    return list(zip(polygon[::2], polygon[1::2], strict=True))


def _clip(points: list[tuple[float, float]], height: int, width: int) -> list[tuple[float, float]]:
    """Sutherland and Hodgman (1974): cut a polygon at the four sides of the frame. Points inside stay as they are."""
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        if points and any((point[axis] - limit) * sign < 0 for point in points):
            points = _clip_side(points, axis, limit, sign)
    return points


def _clip_side(points: list[tuple[float, float]], axis: int, limit: float, sign: int) -> list[tuple[float, float]]:
    kept = []
    for start, end in pairwise([points[-1], *points]):
        before, after = (start[axis] - limit) * sign, (end[axis] - limit) * sign
        if (before < 0) != (after < 0):
            share = before / (before - after)
            crossing = [start[i] + share * (end[i] - start[i]) for i in (0, 1)]
            crossing[axis] = limit
            kept.append((crossing[0], crossing[1]))
        if after >= 0:
            kept.append(end)
    return kept


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO's `segmentation` field, polygons or RLE -> (H, W) bool with at least one pixel. Raises ValueError."""
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation, height, width)
    else:
        mask = polygons_to_mask(segmentation, height, width)
    if not mask.any():
        raise ValueError("got a mask without a single pixel inside the image")
    return mask
