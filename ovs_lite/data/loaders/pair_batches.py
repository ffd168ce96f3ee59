"""Batches of pictures with captions, for training: batch i is a function of (seed, i) alone, so a run resumes exactly.

B pairs in the batch of all processes, b of them in this one, S pixels of the square that a model sees.
"""

import itertools
import math
import random
import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as transforms

from ovs_lite import distributed
from ovs_lite.data.images import read_image

SCALES = {"crop": (0.5, 1.0), "timm": (0.08, 1.0)}  # augmentation -> share of the picture's area that a crop keeps
COLUMNS = ["image_id", "image", "captions"]
CROP_ATTEMPTS = 10
SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class PairBatch:
    """images: (b, 3, S, S) RGB in [0, 1], this process's share. captions, image_ids: lists of b. total: B, the number
    of pairs in the batch of all processes together. skipped: (name, reason) of bad samples met on the way."""

    images: torch.Tensor
    captions: list[str]
    image_ids: list[str]
    total: int
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)


class PairBatches:
    """index -> PairBatch of this process's share. Every picture comes once per epoch, in a new order, with one of its
    captions; cropped and flipped at random.

    split: records of `load_split`, a list of records, or any sequence of them, such as `WebShards`. Those of the first
    two kinds that have no caption are left out. The order of an epoch is `split.order(seed, epoch)` where there is
    such a method, else any permutation. batch_size: B, a multiple of the number of processes, each of which loads only
    its `distributed.shard` of the places. scale, ratio: a crop's share of the picture's area, and its width over its
    height; scale None is (0.5, 1), with augment="timm" the release's (0.08, 1).

    augment: "crop" for crop and flip alone, or "timm" for the recipe of TCL's release: timm's crop,
    RandAugment m9-mstd0.5-inc1 and random erasing with probability 0.25. Its noise is drawn in units of ImageNet's
    mean and deviation as there, then cut to [0, 1]; normalising is the method's. timm draws from Python's, NumPy's and
    torch's global generators, which are seeded for every picture and put back afterwards: not beside other threads.
    With "crop" any number of threads may ask, as `Prefetched` does.

    A caption's "left" and "right" change places when its picture is mirrored, see `swap_sides`. The released code
    leaves them as they are.

    workers: processes that prepare batches ahead as long as one index follows the other; the same numbers as with 0.
    Bad samples of `WebShards`, whichever process met them, are gathered in `skipped`: name -> reason.
    Raises ValueError for settings that cannot be, for a split without captions, and for a B that does not divide.
    """

    def __init__(
        self,
        split: datasets.Dataset | Sequence[dict[str, Any]],
        batch_size: int,
        size: int,
        seed: int = 0,
        scale: tuple[float, float] | None = None,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        augment: str = "crop",
        workers: int = 0,
    ):
        if augment not in SCALES:
            raise ValueError(f"got augment={augment!r}, expected one of {', '.join(SCALES)}")
        scale = SCALES[augment] if scale is None else scale
        if batch_size < 1 or size < 1 or workers < 0:
            raise ValueError(
                f"got batch_size={batch_size}, size={size}, workers={workers}, expected 1, 1 and 0 or more"
            )
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"got scale={scale}, ratio={ratio}, expected a range in (0, 1] and one of positive ratios")
        self.workers = workers
        self.skipped: dict[str, str] = {}
        self._places = _Places(split, batch_size, seed)
        if isinstance(split, datasets.Dataset):  # without the columns that would be decoded for nothing
            split = split.select_columns(COLUMNS).with_format(None)
        self._loader = _Loader(split, batch_size, size, seed, scale, ratio, flip, augment)
        self._ahead: list[Iterator[PairBatch]] = []  # none or one
        self._following = 0  # the index that it gives next
        # torch's iterator waits 5 s for each worker when the garbage collector finds it in a cycle; held by this
        # finalizer it is in none and ends at once
        weakref.finalize(self, self._ahead.clear)

    def __call__(self, index: int) -> PairBatch:
        batch = self._loader[self._places(index)] if self.workers == 0 else self._from_workers(index)
        self.skipped.update(batch.skipped)
        return batch

    def _from_workers(self, index: int) -> PairBatch:
        if not self._ahead or self._following != index:
            self._ahead.clear()  # ends the old workers before new ones start
            self._ahead.append(self._workers_from(index))
        try:
            batch = next(self._ahead[0])
        except BaseException as error:
            self._ahead.clear()
            raise error.with_traceback(None) from None  # torch's frames would keep the workers as long as the error
        self._following = index + 1
        return batch

    def _workers_from(self, index: int) -> Iterator[PairBatch]:
        options = {"batch_size": None, "collate_fn": _as_it_is, "num_workers": self.workers}
        places = map(self._places, itertools.count(index))
        # a generator of its own, or the loader would draw its workers' seed from torch's global one
        return iter(DataLoader(self._loader, sampler=places, generator=torch.Generator(), **options))


class _Places:
    """index -> (epoch, place in the epoch, record's number) of each pair in this process's share of that batch."""

    def __init__(self, split: datasets.Dataset | Sequence[dict[str, Any]], batch_size: int, seed: int):
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rows = _rows_with_captions(split)
        self.known: tuple[int, np.ndarray] = -1, np.empty(0, int)  # the last epoch and its order

    def __call__(self, index: int) -> list[tuple[int, int, int]]:
        count = distributed.world_size()
        if self.batch_size % count:
            raise ValueError(f"got batch_size={self.batch_size}, expected a multiple of the {count} processes")
        places = range(index * self.batch_size, (index + 1) * self.batch_size)
        found = [divmod(place, len(self.rows)) for place in distributed.shard(places)]
        return [(epoch, number, int(self.rows[int(self.order(epoch)[number])])) for epoch, number in found]

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of `rows` in an epoch."""
        known, order = self.known  # read once: another thread may be in another epoch
        if known != epoch:
            if hasattr(self.split, "order"):
                order = self.split.order(self.seed, epoch)
            else:
                order = np.random.default_rng((self.seed, epoch, len(self.rows))).permutation(len(self.rows))
            self.known = epoch, order
        return order


class _Loader:
    """What a worker process needs: places -> PairBatch."""

    def __init__(self, split, total: int, size: int, seed: int, scale, ratio, flip: bool, augment: str):
        self.split, self.total, self.size, self.seed = split, total, size, seed
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.timm = _timm_transform(size, scale, ratio) if augment == "timm" else None

    def __getitem__(self, places: list[tuple[int, int, int]]) -> PairBatch:
        listed = self.split.report.skipped if hasattr(self.split, "report") else []
        before = len(listed)
        images, captions, names = zip(*(self._pair(*place) for place in places), strict=True)
        return PairBatch(torch.stack(images), list(captions), list(names), self.total, tuple(listed[before:]))

    def _pair(self, epoch: int, number: int, row: int) -> tuple[torch.Tensor, str, str]:
        record = self.split[row]
        rng = np.random.default_rng((self.seed, epoch, number))
        texts = _texts(record["captions"])
        if not texts:
            raise ValueError(f"got record {record['image_id']!r} without a caption, expected one or more; leave it out")
        caption = texts[rng.integers(len(texts))]
        mirrored = self.flip and rng.random() < 0.5
        image = self._augmented(read_image(record["image"]), mirrored, rng)
        return image, swap_sides(caption) if mirrored else caption, record["image_id"]

    def _augmented(self, image: Image.Image, mirrored: bool, rng: np.random.Generator) -> torch.Tensor:
        if self.timm is not None:
            if mirrored:  # here and not by timm, which would not tell
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            with _global_generators(int(rng.integers(2**32))):
                return self.timm(image)
        top, left, height, width = _crop_box(image.height, image.width, self.scale, self.ratio, rng)
        pixels = transforms.to_image(image)[:, top : top + height, left : left + width]
        pixels = transforms.resize(pixels, [self.size, self.size], antialias=True)  # of uint8: twice as fast
        pixels = transforms.to_dtype(pixels, torch.float32, scale=True)
        return pixels.flip(-1) if mirrored else pixels


def swap_sides(caption: str) -> str:
    """The caption of the mirrored picture: the whole words "left" and "right" change places and keep their case.

    Also where they mean no side ("has left", "right now"): rare, and no parser is asked.
    """

    def other(found: re.Match) -> str:
        word = found[0]
        side = SIDES[word.lower()]
        return side.upper() if word.isupper() else side.capitalize() if word[0].isupper() else side

    return re.sub(r"\b(?:left|right)\b", other, caption, flags=re.IGNORECASE)


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


def _crop_box(height: int, width: int, scale, ratio, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws them, but by a generator that is given.

    Where no attempt fits into the picture: the largest box at its centre whose shape the ratio allows.
    """
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= h <= height and 1 <= w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h, w = max(1, min(height, round(width / ratio[0]))), max(1, min(width, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _timm_transform(size: int, scale, ratio):
    """PIL RGB -> (3, S, S) in [0, 1]; draws from the global generators."""
    from timm.data import create_transform
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    policy = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel", "hflip": 0.0}
    normalised = create_transform(size, is_training=True, scale=scale, ratio=ratio, **policy)
    for operation in (operation for stage in normalised.transforms for operation in getattr(stage, "ops", [])):
        if operation.name == "PosterizeIncreasing":
            operation.magnitude_max = 9.9  # of 10, which leaves 0 bits: black once, an error since Pillow 12
    return _Unnormalised(normalised, torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD))


@dataclass(frozen=True)
class _Unnormalised:
    transform: Any
    mean: torch.Tensor
    deviation: torch.Tensor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return (self.transform(image) * self.deviation.view(3, 1, 1) + self.mean.view(3, 1, 1)).clamp(0, 1)


@contextmanager
def _global_generators(seed: int):
    """Python's, NumPy's and torch's (CPU) generators seeded for a while, then as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs, which nobody puts back
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _as_it_is(batch: PairBatch) -> PairBatch:
    return batch
