"""Batches of images with masks, for training: batch i is a function of (seed, i) alone, so a run can resume exactly.

B images in the batch of all processes, b of them in this one, M masks, S pixels of the square that a model sees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.data.caption_text import keep_words, swap_sides
from ovs_lite.data.images import read_image
from ovs_lite.data.loaders.places import Places
from ovs_lite.data.segments import record_masks


@dataclass(frozen=True)
class MaskBatch:
    """This process's share of a batch.

    images: (b, 3, S, S) RGB in [0, 1].
    masks: list of b (M, S, S) bool, M may be 0.
    labels: list of b (M,) int64 category ids, -1 for unlabelled masks.
    image_ids: list of b names.
    total: B.
    words: list of b lists of words of one of the image's captions; all empty unless they were asked for.
    """

    images: torch.Tensor
    masks: list[torch.Tensor]
    labels: list[torch.Tensor]
    image_ids: list[str]
    total: int
    words: list[list[str]] = field(default_factory=list)


class MaskBatches:
    """index -> MaskBatch of this process's share. Every image comes once per epoch, in a new order; flipped, scaled
    and cropped at random.

    split: records of `load_split`.
    batch_size: B, a multiple of the number of processes, each of which loads only its `distributed.shard`.
    scale: the image's long side becomes S times a factor from this range (OpenSeg, section 4.1: 0.8 to 1.2); the image
        is then padded with `fill` or cropped to S x S. (1, 1) without flip gives the images as they are.
    per: see `ovs_lite.data.segments.record_masks`. Masks that a crop leaves empty are dropped.
    words: caption -> its words, of which each is kept with probability `keep`, of one caption of the image at random.
        None: no words. A mirrored image has those of its caption with left and right swapped.
    """

    def __init__(
        self,
        split: datasets.Dataset | Sequence[dict[str, Any]],
        batch_size: int,
        size: int,
        seed: int = 0,
        scale: tuple[float, float] = (0.8, 1.2),
        flip: bool = True,
        per: str = "segment",
        fill: tuple[float, float, float] = (0.48, 0.46, 0.41),
        words: Callable[[str], list[str]] | None = None,
        keep: float = 1.0,
    ):
        if len(split) == 0 or batch_size < 1 or size < 1 or not 0 < scale[0] <= scale[1]:
            given = f"{len(split)} records, batch_size={batch_size}, size={size}, scale={scale}"
            raise ValueError(f"got {given}, expected at least one of each and a range of positive factors")
        self.split, self.batch_size, self.size, self.seed = split, batch_size, size, seed
        self.places = Places(len(split), batch_size, seed)
        self.scale, self.flip, self.per, self.fill = scale, flip, per, torch.tensor(fill).view(3, 1, 1)
        self.words, self.keep = words, keep

    def __call__(self, index: int) -> MaskBatch:
        examples = (self._example(*place) for place in self.places(index))
        images, masks, labels, names, words = map(list, zip(*examples, strict=True))
        return MaskBatch(torch.stack(images), masks, labels, names, self.batch_size, words)

    def _example(self, epoch: int, number: int, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str, list]:
        record = self.split[row]
        rng = np.random.default_rng((self.seed, epoch, number))
        masks, labels = record_masks(record, self.per)
        image = transforms.to_dtype(transforms.to_image(read_image(record["image"])), torch.float32, scale=True)
        mirrored = self.flip and rng.random() < 0.5
        if mirrored:
            image, masks = image.flip(-1), masks[..., ::-1].copy()
        image, targets = self._placed(image, torch.from_numpy(masks), rng)
        kept = targets.flatten(1).any(1)
        words = self._words(record["captions"], mirrored, rng)
        return image, targets[kept], torch.from_numpy(labels)[kept], record["image_id"], words

    def _words(self, captions: Sequence[str] | None, mirrored: bool, rng: np.random.Generator) -> list[str]:
        if self.words is None or not captions:
            return []
        caption = captions[rng.integers(len(captions))]
        return keep_words(self.words(swap_sides(caption) if mirrored else caption), self.keep, rng)

    def _placed(
        self, image: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale, and crop or pad to S x S, the same for image and masks."""
        factor = self.size * rng.uniform(*self.scale) / max(image.shape[1:])
        height, width = (max(1, round(side * factor)) for side in image.shape[1:])
        if (height, width) != tuple(image.shape[1:]):
            image = transforms.resize(image, [height, width], antialias=True)
            masks = F.interpolate(masks[:, None].float(), (height, width), mode="nearest-exact")[:, 0] > 0.5
        top, left = (_offset(side, self.size, rng) for side in (height, width))
        canvas = self.fill.expand(-1, self.size, self.size).clone()
        room = torch.zeros(len(masks), self.size, self.size, dtype=torch.bool)
        inside = (..., slice(max(0, -top), max(0, -top) + height), slice(max(0, -left), max(0, -left) + width))
        seen = (..., slice(max(0, top), max(0, top) + self.size), slice(max(0, left), max(0, left) + self.size))
        canvas[inside], room[inside] = image[seen], masks[seen]
        return canvas, room


class MixedBatches:
    """index -> one MaskBatch of an equal share of several `MaskBatches` (OpenSeg, section 4.1)."""

    def __init__(self, parts: Sequence[Callable[[int], MaskBatch]]):
        self.parts = parts

    def __call__(self, index: int) -> MaskBatch:
        found = [part(index) for part in self.parts]
        lists = [sum((getattr(b, name) for b in found), []) for name in ("masks", "labels", "image_ids", "words")]
        masks, labels, names, words = lists
        images, total = torch.cat([batch.images for batch in found]), sum(batch.total for batch in found)
        return MaskBatch(images, masks, labels, names, total, words)


def _offset(side: int, room: int, rng: np.random.Generator) -> int:
    """Where a window of `room` pixels starts on `side` pixels; negative where the image lies inside the window."""
    return int(rng.integers(min(0, side - room), max(0, side - room) + 1))
