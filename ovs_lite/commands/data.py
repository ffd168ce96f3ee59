"""What `ovs-lite data build | list | show | verify | nltk` do."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ovs_lite.config import Profile
from ovs_lite.data.record import MANIFEST, load_split
from ovs_lite.data.segments import segment_ids
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.distributed import Interrupts
from ovs_lite.files import data_root
from ovs_lite.iconworld.build import build_set, split_folder
from ovs_lite.iconworld.sets import SET_NAMES, icon_sets, scene_count
from ovs_lite.viz.sheets import contact_sheet


def build(profile: Profile, only: Sequence[str] = ()) -> list[Path]:
    """Build the named sets of a profile, or all; what is there already is kept. Returns the folders. SIGTERM ends it
    with the splits that are complete."""
    for name in only:
        icon_sets(name)  # a wrong name is an error before anything is built
    names, folders = only or SET_NAMES, []
    with Interrupts(signal.SIGTERM):
        for name in names:
            folders += build_set(name, profile.data, data_root(), profile.seed)
    return folders


def describe(profile: Profile) -> list[str]:
    """One line per split: set, split, number of scenes, and its folder or that it is not built."""
    lines = []
    for name in SET_NAMES:
        for icon_set in icon_sets(name):
            folder = split_folder(data_root(), profile.data, name, icon_set.split)
            state = str(folder) if folder.is_dir() else "not built"
            lines.append(f"{name:15} {icon_set.split:6} {scene_count(icon_set, profile.data):6} scenes  {state}")
    return lines


def verify(profile: Profile, only: Sequence[str] = (), folders: Sequence[Path] = ()) -> Iterator[tuple[Path, str]]:
    """Read everything again: each split's folder, and what is wrong with it, "" where nothing is.

    only: these sets of the profile instead of all that are built. folders: of any splits, or above them, instead.
    Raises FileNotFoundError where there is nothing to verify, ValueError for unknown names.
    """
    found = [split for folder in folders for split in sorted(p.parent for p in folder.rglob(MANIFEST)) or [folder]]
    if not folders:
        splits = [icon_set for name in only or SET_NAMES for icon_set in icon_sets(name)]
        found = [split_folder(data_root(), profile.data, icon_set.name, icon_set.split) for icon_set in splits]
        found = [folder for folder in found if only or folder.exists()]
    if not found:
        raise FileNotFoundError(f"nothing is built in {data_root()}; build it with: ovs-lite data build")
    for folder in found:
        try:
            load_split(folder, verify=True)
        except (OSError, ValueError) as error:
            yield folder, " ".join(str(error).split())
        else:
            yield folder, ""


def sheet(profile: Profile, name: str, split: str | None = None, count: int = 24) -> Image.Image:
    """A contact sheet of the first `count` scenes of a set with their segments and first captions, else class names.

    split: None takes the set's first. Raises ValueError for unknown names and for a count below 1, FileNotFoundError
    where the set is not built.
    """
    if count < 1:
        raise ValueError(f"got count={count}, expected at least 1")
    splits = [icon_set.split for icon_set in icon_sets(name)]
    split = split or splits[0]
    if split not in splits:
        raise ValueError(f"got split {split!r}, expected one of {', '.join(splits)} for {name}")
    records = list(islice(load_split(split_folder(data_root(), profile.data, name, split)), count))
    vocabulary = next(icon_set.vocabulary for icon_set in icon_sets(name) if icon_set.split == split)
    captions = [_title(record, vocabulary) for record in records]
    segments = [segment_ids(record) for record in records]
    annotated = any(ids is not None for ids in segments)
    return contact_sheet([record["image"] for record in records], captions, segments if annotated else None)


def _title(record: Mapping[str, Any], vocabulary: Vocabulary | None) -> str:
    if record["captions"]:
        return record["captions"][0]
    info = record["segments_info"] if vocabulary is not None else None
    names = dict.fromkeys(vocabulary.names[segment["category_id"]] for segment in info or ())
    return ", ".join(names) or record["image_id"]


def tagged_example(nltk_data: str) -> tuple[bool, str]:
    """Whether NLTK's own tagger is there, in that folder or where NLTK looks; a sentence tagged by it, or the cure."""
    from ovs_lite.data.tagging import load_tagger

    try:
        tagger = load_tagger("nltk", os.path.expanduser(nltk_data))
    except (FileNotFoundError, ValueError) as error:
        return False, f"{error}; until then captions are read by the shipped tagger"
    tagged = " ".join(f"{word}/{tag}" for word, tag in tagger.tag("a small dog beside two fire hydrants"))
    return True, f"{tagger.name}: {tagged}"
