"""The record's columns, and the check that every record passes before it is written.

| column | meaning |
| --- | --- |
| image_id | text, unique inside the data set |
| image | encoded RGB |
| segments | 16-bit PNG, segment id per pixel, 0 = void; None where nothing is annotated |
| segments_info | list of {id, category_id, is_thing, is_crowd, area, bbox}, None together with segments |
| captions | list of text, may be empty |
| masks | "masks" and "pairs": list of COCO RLE {size: [H, W], counts: text}, for masks that overlap |
| pair | "pairs" only: where a mined pair of a region and a word comes from; the image is the region's crop |

bbox is XYWH in pixels; category_id indexes the vocabulary, -1 = unlabelled.
"""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np

from ovs_lite.data.images import read_image_file
from ovs_lite.data.segments import decode_segments, encode_segments

SEGMENT_INFO = {
    "id": datasets.Value("int32"),
    "category_id": datasets.Value("int32"),
    "is_thing": datasets.Value("bool"),
    "is_crowd": datasets.Value("bool"),
    "area": datasets.Value("int64"),
    "bbox": datasets.List(datasets.Value("int32")),
}
FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(mode="RGB"),
        "segments": datasets.Image(),
        "segments_info": datasets.List(SEGMENT_INFO),
        "captions": datasets.List(datasets.Value("string")),
    }
)
RLE = {"size": datasets.List(datasets.Value("int32")), "counts": datasets.Value("string")}
# Of a mined pair: image_id and caption of its source, box of the crop there (XYXY pixels), the place of its mask among
# the source's, and the cosine of crop and word.
PAIR = {
    "source": datasets.Value("string"),
    "caption": datasets.Value("string"),
    "box": datasets.List(datasets.Value("int32")),
    "mask": datasets.Value("int32"),
    "score": datasets.Value("float32"),
}
FEATURES_MASKS = datasets.Features({**FEATURES, "masks": datasets.List(RLE)})
COLUMNS = {
    "segments": FEATURES,
    "masks": FEATURES_MASKS,
    "pairs": datasets.Features({**FEATURES_MASKS, "pair": PAIR}),
}


def encode_record(record: dict[str, Any], columns: str = "segments") -> dict[str, Any]:
    """A record of arrays or images -> the row that is written. Raises ValueError naming the record.

    image: anything `read_image` takes; segments lie on the upright image. segments: (H, W) integer array, PNG bytes
    of `encode_segments`, or None.
    """
    expected = COLUMNS[columns]
    name = record.get("image_id")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"got image_id {name!r}, expected a non-empty string")
    if set(record) != set(expected):
        raise ValueError(f"record {name!r}: got columns {sorted(record)}, expected {sorted(expected)}")
    try:
        row = {"image_id": name, "captions": _captions(record["captions"])}
        image = read_image_file(record["image"])
        row["image"] = {"bytes": image.encoded, "path": None}
        height, width = image.height, image.width
        row["segments"], row["segments_info"] = _segments(record["segments"], record["segments_info"], height, width)
        if "masks" in expected:
            row["masks"] = [_mask(rle, height, width) for rle in record["masks"]]
        if "pair" in expected:
            row["pair"] = _pair(record["pair"], row, height, width)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"record {name!r}: {error}") from error
    return row


def _captions(captions: Any) -> list[str]:
    if not isinstance(captions, list | tuple) or not all(isinstance(text, str) and text.strip() for text in captions):
        raise ValueError(f"got captions {captions!r}, expected a list of non-empty strings")
    return list(captions)


def _segments(segments: Any, infos: Any, height: int, width: int) -> tuple[dict | None, list[dict] | None]:
    if (segments is None) != (infos is None):
        raise ValueError("got one of segments and segments_info without the other, expected both or neither")
    if segments is None:
        return None, None
    ids = decode_segments(segments) if isinstance(segments, bytes) else np.asarray(segments)
    encoded = segments if isinstance(segments, bytes) else encode_segments(ids)
    if ids.shape != (height, width):
        raise ValueError(f"got segments of {ids.shape}, expected the image's {(height, width)}")
    areas = np.bincount(ids.ravel())
    present = {int(key): int(areas[key]) for key in np.flatnonzero(areas) if key > 0}
    claimed = {info["id"]: info["area"] for info in infos}
    if claimed != present or len(infos) != len(present):
        raise ValueError(f"got segments_info with id: area {claimed}, expected what the map holds: {present}")
    return {"bytes": encoded, "path": None}, [_info(info, height, width) for info in infos]


def _info(info: dict, height: int, width: int) -> dict:
    if set(info) != set(SEGMENT_INFO):
        raise ValueError(f"got a segment with {sorted(info)}, expected {sorted(SEGMENT_INFO)}")
    if info["category_id"] < -1:
        raise ValueError(f"got category_id {info['category_id']}, expected -1 (unlabelled) or a class id")
    x, y, w, h = info["bbox"]
    if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
        raise ValueError(f"got bbox {info['bbox']}, expected XYWH inside {width} x {height} pixels")
    return dict(info)


def _mask(rle: Any, height: int, width: int) -> dict:
    if list(rle["size"]) != [height, width] or not isinstance(rle["counts"], str):
        raise ValueError(f"got a mask of size {rle['size']}, expected text RLE of {[height, width]}")
    return {"size": [height, width], "counts": rle["counts"]}


def _pair(pair: Mapping[str, Any], row: Mapping[str, Any], height: int, width: int) -> dict:
    """Where a pair comes from, of a row with one mask and one caption whose image is the box."""
    if (found := (len(row["masks"]), len(row["captions"]))) != (1, 1):
        raise ValueError(f"got {found[0]} masks and {found[1]} captions, expected one of each, a region and its word")
    left, top, right, bottom = pair["box"]
    if min(left, top) < 0 or (right - left, bottom - top) != (width, height):
        raise ValueError(f"got box {pair['box']}, expected XYXY of the crop's {width} x {height} pixels")
    return {key: pair[key] for key in PAIR}
