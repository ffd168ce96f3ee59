"""From rendered scenes to records: segments of a vocabulary's classes, or unlabelled masks at three granularities."""

import numpy as np

from ovs_lite.data.rle import encode_rle
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.iconworld.atlas import read_index
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.parts import part_map
from ovs_lite.iconworld.render import Rendering
from ovs_lite.iconworld.scene import SceneBatch
from ovs_lite.iconworld.textures import STUFF_NAMES

MIN_MASK_PIXELS = 12


def segment_names(scene: SceneBatch, index: int) -> dict[int, str]:
    """Name of every segment id of one scene's id map."""
    regions = scene.stuff_ids.shape[1]
    names = {r + 1: STUFF_NAMES[stuff] for r, stuff in enumerate(scene.stuff_ids[index].tolist())}
    nouns = load_nouns()
    for thing, noun in enumerate(scene.noun_ids[index].tolist()):
        names[regions + 1 + thing] = nouns[noun].noun
    return names


def panoptic(ids: np.ndarray, names: dict[int, str], vocabulary: Vocabulary) -> tuple[np.ndarray, list[dict]]:
    """Keep what the vocabulary names: id map (H, W) -> (segments (H, W) with 0 = void, segments_info).

    Two regions of the same stuff become one segment. Where the vocabulary has a background class, all other pixels
    are one segment of it; otherwise they are void.
    """
    segments = np.zeros(ids.shape, dtype=np.int32)
    owner: dict[int, int] = {}  # segment id -> category
    stuff_segment: dict[int, int] = {}  # stuff category -> its one segment id
    for segment_id in np.unique(ids).tolist():
        category = vocabulary.find(names[segment_id])
        if category is None:
            continue
        target = segment_id if vocabulary.is_thing[category] else stuff_segment.setdefault(category, segment_id)
        segments[ids == segment_id] = target
        owner[target] = category
    if vocabulary.background is not None and (segments == 0).any():
        background_id = int(ids.max()) + 1
        segments[segments == 0] = background_id
        owner[background_id] = vocabulary.background
    info = [
        describe_segment(segments == key, key, category, vocabulary.is_thing[category], is_crowd=False)
        for key, category in sorted(owner.items())
    ]
    return segments, info


def granular_masks(scene: SceneBatch, rendering: Rendering, index: int) -> list[dict]:
    """Unlabelled masks of one scene as COCO RLE: parts (wheel, window, ear), objects, groups of like objects.

    Stuff regions count as objects. Only visible pixels count; masks below MIN_MASK_PIXELS and repeats are left out.
    """
    ids, regions = rendering.ids[index].numpy(), scene.stuff_ids.shape[1]
    masks: list[np.ndarray] = [ids == r + 1 for r in range(regions)]
    groups: dict[int, list[np.ndarray]] = {}
    for thing, noun in enumerate(scene.noun_ids[index].tolist()):
        visible = ids == regions + 1 + thing
        if not visible.any():
            continue
        pieces = part_map(int(scene.drawing_ids[index, thing]))[sprite_pixels(scene, index, thing, ids.shape[-1])]
        masks += [visible, *(visible & (pieces == piece) for piece in range(1, pieces.max() + 1) if pieces.max() > 1)]
        groups.setdefault(noun, []).append(visible)
    masks += [np.logical_or.reduce(members) for members in groups.values() if len(members) > 1]
    encoded = [encode_rle(mask) for mask in masks if mask.sum() >= MIN_MASK_PIXELS]
    return list({rle["counts"]: rle for rle in encoded}.values())


def sprite_pixels(scene: SceneBatch, index: int, thing: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixel of a thing's sprite each pixel of the image shows: rows and columns, (size, size) int64, clamped."""
    side = read_index()["side"]
    x, y, own, angle, flip = (
        float(value[index, thing]) for value in (scene.x, scene.y, scene.size, scene.rotation, scene.flip)
    )
    axis = (np.arange(size) + 0.5) / size
    across, down = (axis[None] - x) / own, (axis[:, None] - y) / own
    u, v = flip * (np.cos(angle) * across + np.sin(angle) * down), np.cos(angle) * down - np.sin(angle) * across
    return tuple(((value + 0.5) * side).astype(np.int64).clip(0, side - 1) for value in (v, u))
