"""Batches of images with captions, for training: batch i is a function of (seed, i) alone, so a run resumes exactly.

B pairs in the batch of all processes, b of them in this one, S pixels of the square that a model sees.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from ovs_lite.data.caption_text import swap_sides
from ovs_lite.data.images import read_image
from ovs_lite.data.loaders.augment import Augmentation
from ovs_lite.data.loaders.places import Places
from ovs_lite.data.loaders.shard_names import shard_paths, union_parts
from ovs_lite.data.loaders.synthetic_pairs import synthetic_pairs
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.record import load_split
from ovs_lite.files import data_path

COLUMNS = ["image_id", "image", "captions"]


def load_pairs(sources: Sequence[str]) -> Sequence:
    """Records with captions: of one prepared split (a folder), of shards, or made in memory.

    Every source is a path, or one below the data folder. Shards end in .tar and may be patterns (`cc3m/{000..331}.tar`)
    and unions (`a/*.tar::b/*.tar`), see `shard_paths`. "synthetic", or "synthetic:1000" for so many, are random images
    and captions; a folder of that name is "./synthetic". Raises ValueError for several splits or a mixture, and
    FileNotFoundError for what is not there.
    """
    sources = [str(source) for source in sources]
    if len(sources) == 1 and (made := synthetic_pairs(sources[0])):
        return made
    parts = [part for source in sources for part in union_parts(source)]
    if parts and all(part.endswith(".tar") for part in parts):
        return WebShards(shard_paths(parts, data_path))
    if len(parts) != 1 or synthetic_pairs(parts[0]):
        given = ", ".join(sources) or "nothing"
        raise ValueError(f"got {given} as data, expected one prepared split, webdataset shards (*.tar), or synthetic")
    return load_split(data_path(parts[0]))


@dataclass(frozen=True)
class PairBatch:
    """This process's share of a batch.

    images: (b, 3, S, S) RGB in [0, 1].
    captions: list of b texts.
    image_ids: list of b names.
    total: B.
    skipped: (name, reason) of bad samples met on the way.
    """

    images: torch.Tensor
    captions: list[str]
    image_ids: list[str]
    total: int
    skipped: tuple[tuple[str, str], ...] = ()


class PairBatches:
    """index -> PairBatch of this process's share. Every image comes once per epoch, in a new order, with one of its
    captions; cropped and mirrored at random.

    split: records of `load_split`, a list of records, or another sequence of them, such as `WebShards`. Of the first
        two kinds those without a caption are left out. `split.order(seed, epoch)`, where there is one, orders an epoch.
    batch_size: B, a multiple of the number of processes, each of which loads only its `distributed.shard`.
    size: S.
    crop_area: range of a crop's share of the image's area.
    augment: "crop" or "strong", see `augment`. With "crop" any number of threads may ask; "strong" is for the main
        thread or for workers.
    workers: processes that prepare batches ahead as long as one index follows the other; the same numbers as with 0.
    skipped: name -> reason of the bad samples of `WebShards`, whichever process met them.

    A caption's "left" and "right" change places when its image is mirrored; the released code leaves them as they are.
    Raises ValueError for settings that cannot be, for a split without captions, and for a B that does not divide.
    """

    def __init__(
        self,
        split: datasets.Dataset | Sequence[dict[str, Any]],
        batch_size: int,
        size: int,
        seed: int = 0,
        crop_area: tuple[float, float] = (0.5, 1.0),
        augment: str = "crop",
        workers: int = 0,
    ):
        if batch_size < 1 or workers < 0:
            raise ValueError(f"got batch_size={batch_size}, workers={workers}, expected 1 and 0 or more")
        self.workers = workers
        self.skipped: dict[str, str] = {}
        rows = _rows_with_captions(split)
        self._places = Places(len(rows), batch_size, seed, getattr(split, "order", None))
        if isinstance(split, datasets.Dataset):  # without the columns that would be decoded for nothing
            split = split.select_columns(COLUMNS).with_format(None)
        self._loader = _Loader(split, rows, batch_size, seed, Augmentation(augment, size, crop_area))
        self._ahead: Iterator[PairBatch] | None = None
        self._following: int | None = None  # the index that `_ahead` gives next

    def __call__(self, index: int) -> PairBatch:
        batch = self._from_workers(index) if self.workers else self._loader[self._places(index)]
        self.skipped.update(batch.skipped)
        return batch

    def _from_workers(self, index: int) -> PairBatch:
        if self._ahead is None or self._following != index:
            self._ahead = None  # ends the old workers before new ones start
            self._ahead = self._workers_from(index)
        self._following = None  # after an error the next call starts again
        try:
            batch = next(self._ahead)
        except (ConnectionError, EOFError) as error:  # gone in the middle of a batch, unknown to torch
            if "in DataLoader worker process" in str(error):  # no: an error of the data, which torch passes on
                raise
            raise RuntimeError("a DataLoader worker was killed, perhaps for want of memory") from error
        self._following = index + 1
        return batch

    def _workers_from(self, index: int) -> Iterator[PairBatch]:
        options = {"batch_size": None, "num_workers": self.workers}
        places = map(self._places, itertools.count(index))
        # a generator of its own, or the loader would draw its workers' seed from torch's global one
        return iter(DataLoader(self._loader, sampler=places, generator=torch.Generator(), **options))


@dataclass(frozen=True)
class _Loader:
    """What a worker process needs: places -> PairBatch. rows: numbers of the records to train with."""

    split: datasets.Dataset | Sequence[dict[str, Any]]
    rows: Sequence[int]
    total: int
    seed: int
    augmented: Augmentation

    def __getitem__(self, places: list[tuple[int, int, int]]) -> PairBatch:
        listed = self.split.report.skipped if hasattr(self.split, "report") else []
        before = len(listed)
        images, captions, names = zip(*(self._pair(*place) for place in places), strict=True)
        return PairBatch(torch.stack(images), list(captions), list(names), self.total, tuple(listed[before:]))

    def _pair(self, epoch: int, number: int, row: int) -> tuple[torch.Tensor, str, str]:
        record = self.split[int(self.rows[row])]
        rng = np.random.default_rng((self.seed, epoch, number))
        texts = _texts(record["captions"])
        if not texts:
            raise ValueError(f"got record {record['image_id']!r} without a caption, expected one or more; leave it out")
        caption = texts[rng.integers(len(texts))]
        mirrored = rng.random() < 0.5
        image = self.augmented(read_image(record["image"]), mirrored, rng)
        return image, swap_sides(caption) if mirrored else caption, record["image_id"]


def _texts(captions: Sequence[str | None] | None) -> list[str]:
    return [text for text in captions or [] if text and text.strip()]


def _rows_with_captions(split: datasets.Dataset | Sequence[dict[str, Any]]) -> Sequence[int]:
    """Numbers of the records to train with. Of a stream, whose records are not at hand, that is all."""
    if isinstance(split, datasets.Dataset):
        captions = split.select_columns(["captions"]).with_format("arrow")[:]["captions"].to_pylist()
    elif isinstance(split, list | tuple):
        captions = [record["captions"] for record in split]
    else:
        captions = None
    rows = range(len(split)) if captions is None else np.flatnonzero([bool(_texts(texts)) for texts in captions])
    if len(rows) == 0:
        raise ValueError(f"got {len(split)} records, none with a caption, expected image-text pairs to train with")
    return rows
