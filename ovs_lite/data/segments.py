"""Segment maps: who owns each pixel, stored as 16-bit PNG next to a list that says what each segment is.

Legend: H, W pixels; 0 = void (nobody's pixel), 1..65535 = segment ids. Boxes are XYWH in pixels.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

MAX_SEGMENT_ID = 65535


def encode_segments(segments: np.ndarray) -> bytes:
    """(H, W) integer segment ids -> 16-bit grey PNG. Raises ValueError outside 0..65535."""
    segments = np.asarray(segments)
    if segments.ndim != 2 or segments.size == 0 or segments.dtype.kind not in "iu":
        raise ValueError(f"got segments {segments.shape} of {segments.dtype}, expected a (H, W) array of integers")
    if segments.min() < 0 or segments.max() > MAX_SEGMENT_ID:
        raise ValueError(f"got segment ids {segments.min()}..{segments.max()}, expected 0..{MAX_SEGMENT_ID}")
    stream = io.BytesIO()
    Image.fromarray(segments.astype(np.uint16)).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def decode_segments(source: Any) -> np.ndarray:
    """What `encode_segments` made, as PNG bytes or as the PIL image of a loaded record -> (H, W) int32 segment ids."""
    image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    if image.mode not in ("I;16", "I"):
        raise ValueError(f"got a segment map in mode {image.mode!r}, expected a 16-bit grey PNG (colours are no ids)")
    return np.array(image, dtype=np.int32)


def describe_segment(mask: np.ndarray, segment_id: int, category_id: int, is_thing: bool, is_crowd: bool) -> dict:
    """One entry of `segments_info` for a (H, W) bool mask with at least one pixel. bbox is XYWH, area in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        raise ValueError(f"got an empty mask for segment {segment_id}, expected at least one pixel")
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": int(segment_id),
        "category_id": int(category_id),
        "is_thing": bool(is_thing),
        "is_crowd": bool(is_crowd),
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
    }


def semantic_map(segments: Any, segments_info: Sequence[dict], ignore: int = 255) -> np.ndarray:
    """Segment map -> (H, W) int64 category ids.

    segments: (H, W) integer array, or what `decode_segments` takes. Void pixels and unlabelled segments (category -1)
    become `ignore`. A crowd keeps its category: its pixels are that class, only their instances are unknown. Raises
    ValueError where the map holds an id that segments_info lacks, or where `ignore` is one of the categories.
    """
    ids = segments if isinstance(segments, np.ndarray) else decode_segments(segments)
    table = np.full(max(MAX_SEGMENT_ID, int(ids.max(initial=0))) + 1, -2, dtype=np.int64)
    table[0] = -1
    for info in segments_info:
        table[info["id"]] = info["category_id"]
    categories = table[ids]
    if (categories == -2).any():
        unknown = np.unique(ids[categories == -2]).tolist()
        raise ValueError(f"got segment ids {unknown} in the map, expected only those of segments_info")
    if ignore >= 0 and any(info["category_id"] == ignore for info in segments_info):
        raise ValueError(f"got ignore={ignore}, which is a category of this record; use a value outside the vocabulary")
    categories[categories == -1] = ignore
    return categories
