"""Records small enough to check by hand: plain colours per segment, painted classes, ramps, shapes with captions."""

import io

import numpy as np
from PIL import Image

from kit.images import ramp
from ovs_lite.data.rle import encode_rle
from ovs_lite.data.segments import describe_segment, encode_segments

GROUND, COLOURS = (0, 0, 255), {1: (255, 0, 0), 2: (0, 255, 0), 3: (255, 255, 0), 4: (255, 0, 255)}
NAMED = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
DYES = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "yellow": (230, 220, 40)}
SHAPES = {"block": (36, 36), "bar": (14, 60)}


def make_record(image_id, image, segments=None, segments_info=None, captions=()):
    """The columns that every split has."""
    columns = {"image_id": image_id, "image": image, "segments": segments, "segments_info": segments_info}
    return columns | {"captions": list(captions)}


def toy(name, ids, categories=None, crowds=(), encoded=False):
    """A record whose segment i has colour COLOURS[i]. categories: by segment id, default ten times the id."""
    ids = np.asarray(ids)
    image = np.full((*ids.shape, 3), GROUND, np.uint8)
    infos = []
    for i in range(1, ids.max(initial=0) + 1):
        image[ids == i] = COLOURS[i]
        infos.append(describe_segment(ids == i, i, (categories or {}).get(i, 10 * i), True, i in crowds))
    segments = Image.open(io.BytesIO(encode_segments(ids))) if encoded else ids
    return make_record(name, image, segments, infos)


def scene(height=40, width=40):
    """Three segments: a block at the left, an L at the right, a bar at the bottom."""
    ids = np.zeros((height, width), int)
    ids[height // 5 : height // 2, 0 : width // 3] = 1
    ids[: height // 2, -width // 4 :] = ids[height // 4 : height // 2, -width // 2 :] = 2
    ids[-height // 4 :] = 3
    return ids


def without_annotation(name="bare", masks=(), side=8):
    record = make_record(name, np.full((side, side, 3), 128, np.uint8))
    return record | ({"masks": [encode_rle(mask) for mask in masks]} if len(masks) else {})


def three_segments(index, masks=False):
    """A 12 x 16 image with three segments: a thing, unlabelled stuff and a crowd."""
    rng = np.random.default_rng(index)
    segments = np.zeros((12, 16), dtype=np.int32)
    segments[:5, :7], segments[6:, 9:], segments[8:, :3] = 1, 300, 65535
    infos = [
        describe_segment(segments == 1, 1, 4, True, False),
        describe_segment(segments == 300, 300, -1, False, False),
        describe_segment(segments == 65535, 65535, 2, True, True),
    ]
    record = make_record(f"r{index}", rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), segments, infos, ["a"])
    return record | ({"masks": [encode_rle(segments == 1), encode_rle(segments > 0)]} if masks else {})


def painted(name, image, categories):
    """A record from (H, W, 3) colours and (H, W) class ids; -1 is a segment without class, -2 is nobody's."""
    image, categories = np.asarray(image, np.uint8), np.asarray(categories)
    known = sorted(set(np.unique(categories)) - {-2})
    segments, infos = np.zeros(categories.shape, np.int32), []
    for number, category in enumerate(known, 1):
        segments[categories == category] = number
        infos.append({"id": number, "category_id": int(category), "is_thing": False, "is_crowd": False})
    return make_record(name, image, segments, infos)


def by_name(name, rows, categories):
    """A painted record whose image is given by colour names, "r", "g", "b", "w" per pixel."""
    colours = {key[0]: colour for key, colour in NAMED.items()}
    return painted(name, [[colours[letter] for letter in row] for row in rows], categories)


def painted_noise(seed, height, width, classes=4, name=None):
    """Every pixel's colour and class are random."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3))
    return painted(name or f"noise-{seed}", image, rng.integers(-2, classes, (height, width)))


def ramp_pair(number, height=40, width=48, captions=None):
    """An image-text pair: a ramp of kit.images, which shows where it was cropped."""
    image = ramp(height, width, number).astype(np.uint8)
    return make_record(f"p{number}", image, captions=[f"picture {number}"] if captions is None else captions)


def shape_pairs(count, side=64):
    """Image-text pairs: dark noise with a block or a bar of one colour, and a caption that says which; eight differ."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        colour, shape = list(DYES)[number % 4], list(SHAPES)[number // 4 % 2]
        image = rng.integers(0, 90, (side, side, 3)).astype(np.uint8)
        height, width = SHAPES[shape]
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        image[top : top + height, left : left + width] = DYES[colour]
        found.append(make_record(f"p{number}", image, captions=[f"a {colour} {shape}"]))
    return found
