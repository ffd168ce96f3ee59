"""Records whose pictures are plain colours, one per segment, so that a mask can be checked by what it covers."""

import io

import numpy as np
from PIL import Image

from ovs_lite.data.rle import encode_rle
from ovs_lite.data.segments import describe_segment, encode_segments

GROUND, COLOURS = (0, 0, 255), {1: (255, 0, 0), 2: (0, 255, 0), 3: (255, 255, 0), 4: (255, 0, 255)}


def toy(name, ids, categories=None, crowds=(), encoded=False):
    """A record whose segment i has colour COLOURS[i]. categories: by segment id, default ten times the id."""
    ids = np.asarray(ids)
    image = np.full((*ids.shape, 3), GROUND, np.uint8)
    infos = []
    for i in range(1, ids.max(initial=0) + 1):
        image[ids == i] = COLOURS[i]
        infos.append(describe_segment(ids == i, i, (categories or {}).get(i, 10 * i), True, i in crowds))
    segments = Image.open(io.BytesIO(encode_segments(ids))) if encoded else ids
    return {"image_id": name, "image": image, "segments": segments, "segments_info": infos, "captions": []}


def scene(height=40, width=40):
    """Three segments: a block at the left, an L at the right, a bar at the bottom."""
    ids = np.zeros((height, width), int)
    ids[height // 5 : height // 2, 0 : width // 3] = 1
    ids[: height // 2, -width // 4 :] = ids[height // 4 : height // 2, -width // 2 :] = 2
    ids[-height // 4 :] = 3
    return ids


def without_annotation(name="bare", masks=(), side=8):
    image = np.full((side, side, 3), 128, np.uint8)
    record = {"image_id": name, "image": image, "segments": None, "segments_info": None, "captions": []}
    return record | ({"masks": [encode_rle(mask) for mask in masks]} if len(masks) else {})
