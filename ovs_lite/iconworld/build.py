"""Write IconWorld to disk: every set and split of a configuration as a `datasets` folder. Same seed, same bytes."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ovs_lite.config import ICONWORLD_FORMAT, DataConfig
from ovs_lite.data.parts import until_stopped
from ovs_lite.data.record import is_made, write_split
from ovs_lite.distributed import worker_pool
from ovs_lite.iconworld.annotate import granular_masks, panoptic, segment_names
from ovs_lite.iconworld.caption_grammar import captions_for, scene_contents
from ovs_lite.iconworld.render import Rendering, render
from ovs_lite.iconworld.scene import SceneBatch, sample_scenes
from ovs_lite.iconworld.sets import SET_NAMES, IconSet, icon_sets, scene_count

BATCH = 64


def split_folder(root: Path, config: DataConfig, name: str, split: str) -> Path:
    """Where a split lies: root / configuration folder / set / split."""
    return root / config.folder / name / split


def _seed(seed: int, name: str, split: str, batch: int) -> int:
    return zlib.crc32(f"{seed}/{name}/{split}/{batch}".encode())


def iter_records(icon_set: IconSet, count: int, size: int, seed: int) -> Iterator[dict]:
    """`count` records of a split, with `size` pixels times the set's scale to a side.

    Record i depends on (seed, set, split, i) alone.
    """
    for start in range(0, count, BATCH):
        number = _seed(seed, icon_set.name, icon_set.split, start // BATCH)
        generator = torch.Generator().manual_seed(number)
        scene = sample_scenes(BATCH, icon_set.style, generator)
        drawn = render(scene, round(icon_set.scale * size), generator)
        pictures = (drawn.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        captions: list[list[str]] = [[]] * BATCH
        if icon_set.captions:
            contents, rng = scene_contents(scene, drawn), random.Random(number)
            captions = captions_for(contents, rng, icon_set.captions, stuff=icon_set.landscapes)
        for index in range(min(BATCH, count - start)):
            record = _annotation(icon_set, scene, drawn, index)
            image_id = f"{icon_set.name}-{icon_set.split}-{start + index:06d}"
            yield record | {"image_id": image_id, "image": pictures[index], "captions": captions[index]}


def _annotation(icon_set: IconSet, scene: SceneBatch, drawn: Rendering, index: int) -> dict:
    if icon_set.masks:
        return {"segments": None, "segments_info": None, "masks": granular_masks(scene, drawn, index)}
    if icon_set.vocabulary is None:
        return {"segments": None, "segments_info": None}
    segments, info = panoptic(drawn.ids[index].numpy(), segment_names(scene, index), icon_set.vocabulary)
    return {"segments": segments, "segments_info": info}


def build_set(name: str, config: DataConfig, root: Path, seed: int = 0, progress: bool = True) -> list[Path]:
    """Write the splits of one set that are not there yet, or that other settings made. Returns their folders. SIGTERM
    ends it, see `until_stopped`."""
    folders = []
    for icon_set in icon_sets(name):
        folder = split_folder(root, config, name, icon_set.split)
        creator = _creator(icon_set, config, seed)
        if not is_made(folder, creator):
            count = scene_count(icon_set, config)
            records = until_stopped(iter_records(icon_set, count, config.image_size, seed))
            columns = "masks" if icon_set.masks else "segments"
            write_split(
                records, folder, creator=creator, columns=columns, total=count, overwrite=True, progress=progress
            )
        folders.append(folder)
    return folders


def build_all(config: DataConfig, root: Path, seed: int = 0, progress: bool = True, processes: int = 1) -> list[Path]:
    """Write every set of a configuration; what is there already is kept. Returns all folders.

    processes: how many draw, a set each; they import the package first, so for one missing set there is none.
    """
    asked = [(name, config, root, seed) for name in SET_NAMES]
    if min(processes, sum(not _is_built(*words) for words in asked)) < 2:
        return [folder for words in asked for folder in build_set(*words, progress)]
    pool = worker_pool(processes)
    try:
        drawn = [pool.submit(build_set, *words, False) for words in asked]
        bar = tqdm(drawn, desc="sets of the miniature world", unit="set", disable=not progress)
        return [folder for one in bar for folder in one.result()]
    finally:
        pool.shutdown(cancel_futures=True)


def _creator(icon_set: IconSet, config: DataConfig, seed: int) -> dict:
    """What decides the records of a split."""
    about = {"set": icon_set.name, "split": icon_set.split, "seed": seed}
    return about | {"format": ICONWORLD_FORMAT, "config": asdict(config)}


def _is_built(name: str, config: DataConfig, root: Path, seed: int) -> bool:
    return all(
        is_made(split_folder(root, config, name, one.split), _creator(one, config, seed)) for one in icon_sets(name)
    )
