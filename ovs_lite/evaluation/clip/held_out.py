"""Scenes of IconWorld that no training run can have seen: rendered on demand from seeds of their own.

B scenes of a chunk, T things, H W pixels. The training stream keeps to seeds below `FIRST_HELD_OUT_SEED`.
"""

import random
import zlib
from collections.abc import Iterator

import torch

from ovs_lite.iconworld.caption_grammar import MIN_VISIBLE, captions_for, scene_contents
from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.render import Rendering, render, visible_areas
from ovs_lite.iconworld.scene import SceneBatch, SceneStyle, sample_scenes
from ovs_lite.iconworld.stream import FIRST_HELD_OUT_SEED

CHUNK = 100
EVERY_NOUN = tuple(range(len(load_nouns())))
SINGLE = SceneStyle(noun_ids=EVERY_NOUN, things=(1, 1), size=(0.70, 1.10), hard=0.0)  # large, sharp and whole
MULTI = SceneStyle(noun_ids=EVERY_NOUN, things=(2, 4), hard=0.0)


def held_out_seed(seed: int, part: str, chunk: int) -> int:
    """A seed in FIRST_HELD_OUT_SEED .. 2**32 - 1 for chunk number `chunk` of a part of the evaluation."""
    return FIRST_HELD_OUT_SEED + zlib.crc32(f"{seed}/{part}/{chunk}".encode()) % FIRST_HELD_OUT_SEED


def held_out_scenes(
    style: SceneStyle, count: int, size: int, seed: int, part: str, chunk: int = CHUNK
) -> Iterator[tuple[SceneBatch, Rendering]]:
    """`count` scenes of a style at size x size pixels, at most `chunk` at a time. part: keeps figures independent.

    Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"got {count} scenes, expected at least 1")
    for number, start in enumerate(range(0, count, chunk)):
        generator = torch.Generator().manual_seed(held_out_seed(seed, part, number))
        scene = sample_scenes(min(chunk, count - start), style, generator)
        yield scene, render(scene, size, generator)


def object_masks(scene: SceneBatch, rendering: Rendering) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ground-truth masks of each scene's things: B pairs of (N, H, W) bool visible pixels and (N,) int64 noun ids.

    Things of which less than MIN_VISIBLE can be seen are left out, as captions leave them out.
    """
    regions = scene.stuff_ids.shape[1]
    own = rendering.own
    visible = visible_areas(scene, rendering)[:, regions:]
    kept = scene.thing_valid & (own > 0) & (visible >= MIN_VISIBLE * own)
    pairs = []
    for ids, nouns, keep in zip(rendering.ids, scene.noun_ids, kept, strict=True):
        things = keep.nonzero()[:, 0]
        pairs.append((ids == (regions + 1 + things).view(-1, 1, 1), nouns[things]))
    return pairs


def caption_group(size: int, count: int, seed: int, number: int) -> tuple[torch.Tensor, list[str]]:
    """Scenes with several objects, group `number`: (count, 3, size, size) RGB, and `count` captions, all different."""
    kept: dict[str, torch.Tensor] = {}
    rng = random.Random(f"held out/{seed}/{number}")
    scenes = held_out_scenes(MULTI, 2**40, size, seed, f"retrieval {number}", count)
    while len(kept) < count:
        scene, rendering = next(scenes)
        captions = captions_for(scene_contents(scene, rendering), rng, 1)
        for (caption,), image in zip(captions, rendering.images, strict=True):
            kept.setdefault(caption, image)
    return torch.stack(list(kept.values())[:count]), list(kept)[:count]
