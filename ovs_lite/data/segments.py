"""Segment maps: who owns each pixel, stored as 16-bit PNG next to a list that says what each segment is.

M masks, H W pixels; 0 = void (nobody's pixel), 1..65535 = segment ids. Boxes are XYWH in pixels.

Crowds (COCO's is_crowd: several things of one class in one segment) follow COCO's own tools. Their class is known, so a
semantic map and the masks of classes count them, as panopticapi's panoptic2semantic_segmentation does; their instances
are not, so they are no segment to find and no target of an instance-wise measure.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ovs_lite.data.images import check_pixels, read_image
from ovs_lite.data.rle import decode_rle

MAX_SEGMENT_ID = 65535
PER = ("segment", "class")


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
    """What `encode_segments` made -> (H, W) integer segment ids.

    source: PNG bytes, the PIL image of a loaded record, or an array of ids, which is returned as it is.
    Raises ValueError for bytes that are no such PNG.
    """
    if isinstance(source, np.ndarray):
        return source
    try:
        image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
        check_pixels(image.width, image.height, "a segment map")
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the segment map is no whole PNG ({error}), expected 16-bit grey") from None
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


def record_masks(record: Mapping[str, Any], per: str = "segment") -> tuple[np.ndarray, np.ndarray]:
    """All annotated masks of a record: (M, H, W) bool and their category ids (M,) int64; M may be 0.

    per: "segment": one mask per labelled segment, in the record's order; crowds are left out.
        "class": one mask per category, ascending, crowds included: the pixels that `semantic_map` gives that category.
    Unlabelled segments (category -1) are left out. A record with a `masks` column instead of segments gives those
    masks, which may overlap, each with label -1. Raises ValueError for another `per`.
    """
    if per not in PER:
        raise ValueError(f"got per={per!r}, expected one of {', '.join(PER)}")
    if record["segments"] is None:
        height, width = read_image(record["image"]).size[::-1]
        masks = [decode_rle(rle, height, width) for rle in record.get("masks") or []]
        return np.array(masks, bool).reshape(-1, height, width), np.full(len(masks), -1)
    ids = decode_segments(record["segments"])
    kept = [i for i in record["segments_info"] if i["category_id"] >= 0 and not (per == "segment" and i["is_crowd"])]
    labels = np.array([info["category_id"] for info in kept], np.int64)
    masks = ids == np.array([info["id"] for info in kept], ids.dtype).reshape(-1, 1, 1)
    if per == "class":
        labels, owner = np.unique(labels, return_inverse=True)
        masks = np.array([masks[owner == c].any(0) for c in range(len(labels))], bool).reshape(-1, *ids.shape)
    return masks, labels


def segment_ids(record: Mapping[str, Any]) -> np.ndarray | None:
    """(H, W) segment ids of a record, 0 = void, or None without any; of overlapping masks the smallest lies on top."""
    if record["segments"] is not None:
        return decode_segments(record["segments"])
    masks, _ = record_masks(record)
    numbers = np.arange(1, len(masks) + 1).reshape(-1, 1, 1)
    return (masks[np.argsort(-masks.sum((1, 2)), kind="stable")] * numbers).max(0) if len(masks) else None


def semantic_map(segments: Any, segments_info: Sequence[dict], ignore: int = 255) -> np.ndarray:
    """Segment map -> (H, W) int64 category ids.

    segments: what `decode_segments` takes. Void pixels and unlabelled segments (category -1) become `ignore`; a crowd
    keeps its category. Raises ValueError where the map holds an id that segments_info lacks, or where `ignore` is one
    of the categories.
    """
    ids = decode_segments(segments)
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
