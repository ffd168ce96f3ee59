"""COCO masks, RLE and polygons, decoded only after they are checked.

pycocotools trusts its input: run lengths that sum to less than H*W come back as random heap memory, a size of
100000 x 100000 is allocated. Annotations are other people's files, so every run length is looked at first.

Legend: H, W pixels. RLE runs go down the columns, starting with the number of zeros.
"""

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
    size, runs = _checked(rle, height, width)
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(size[1], size[0]).T)


def rle_area(rle: Any, height: int | None = None, width: int | None = None) -> int:
    """Pixels of the mask that an RLE holds, after the checks of `decode_rle` but without drawing it."""
    return sum(_checked(rle, height, width)[1][1::2])


def _checked(rle: Any, height: int | None, width: int | None) -> tuple[list[int], list[int]]:
    """([H, W], run lengths) of an RLE that can be drawn. Raises ValueError."""
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
    return size, runs


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


def polygons_to_mask(polygons: Any, height: int, width: int, faults: list[str] | None = None) -> np.ndarray:
    """COCO polygons, a list of [x0, y0, x1, y1, ...] in pixels -> (H, W) bool union, clipped to the frame.

    faults: takes a line on every polygon that cannot be used, and the others are drawn; None: one of them is an error.
    Such are those with fewer than three points, an odd number of values, NaN, and points that lie further outside than
    the frame is wide or high: pycocotools walks along every edge in small steps. Raises ValueError where none is good.
    """
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("got no polygon")
    if all(type(value) in (int, float) for value in polygons):
        raise ValueError("got a flat list of numbers, expected a list of polygons [[x0, y0, x1, y1, ...], ...]")
    found = [_polygon_fault(polygon, height, width) for polygon in polygons]
    bad = [f"polygon {n} of {len(found)}: {fault}" for n, fault in enumerate(found, 1) if fault]
    good = [polygon for polygon, fault in zip(polygons, found, strict=True) if not fault]
    if not good or (bad and faults is None):
        raise ValueError(bad[0])
    if faults is not None:
        faults += bad
    return decode_rle(coco_mask.merge(coco_mask.frPyObjects(good, height, width)))


def _polygon_fault(polygon: Any, height: int, width: int) -> str:
    """What is wrong with a polygon; empty where nothing is."""
    if not isinstance(polygon, list) or not all(type(value) in (int, float) for value in polygon):
        return "got a polygon that is not a list of numbers"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"got a polygon of {len(polygon)} values, expected x, y of three points or more"
    sides = (width, height)
    if not all(-sides[i % 2] <= value <= 2 * sides[i % 2] for i, value in enumerate(polygon)):  # false for NaN too
        return f"got a polygon with NaN or with points far outside {width} x {height} pixels"
    return ""


def segmentation_to_mask(segmentation: Any, height: int, width: int, faults: list[str] | None = None) -> np.ndarray:
    """COCO's `segmentation` field, polygons or RLE -> (H, W) bool with at least one pixel.

    faults: as of `polygons_to_mask`. Raises ValueError.
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation, height, width)
    else:
        mask = polygons_to_mask(segmentation, height, width, faults)
    if not mask.any():
        raise ValueError("got a mask without a single pixel inside the image")
    return mask
