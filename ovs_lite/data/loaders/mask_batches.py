"""Batches of pictures with masks, for training: batch i is a function of (seed, i) alone, so a run can resume exactly.

B images in the batch of all processes, b of them in this one, M masks, S pixels of the square that a model sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as transforms

from ovs_lite import distributed
from ovs_lite.data.images import read_image
from ovs_lite.data.rle import decode_rle
from ovs_lite.data.segments import decode_segments

PER = ("segment", "class")


@dataclass(frozen=True)
class MaskBatch:
    """This process's share of a batch.

    images: (b, 3, S, S) RGB in [0, 1].
    masks: list of b (M, S, S) bool, M may be 0.
    labels: list of b (M,) int64 category ids, -1 for unlabelled masks.
    image_ids: list of b names.
    total: B, the number of images in the batch of all processes.
    """

    images: torch.Tensor
    masks: list[torch.Tensor]
    labels: list[torch.Tensor]
    image_ids: list[str]
    total: int

    def __len__(self) -> int:
        return len(self.image_ids)


def record_masks(record: dict[str, Any], per: str = "segment") -> tuple[np.ndarray, np.ndarray]:
    """All annotated masks of a record: (M, H, W) bool and their category ids (M,) int64; M may be 0.

    Crowds and unlabelled segments are left out. A record with a `masks` column gives those masks, each with label -1.
    per: "segment", or "class" for one mask per category, as semantic segmentation has it.
    """
    if per not in PER:
        raise ValueError(f"got per={per!r}, expected one of {', '.join(PER)}")
    if record["segments"] is None:
        height, width = read_image(record["image"]).size[::-1]
        masks = [decode_rle(rle, height, width) for rle in record.get("masks") or []]
        return np.array(masks, bool).reshape(-1, height, width), np.full(len(masks), -1)
    segments = record["segments"]
    ids = segments if isinstance(segments, np.ndarray) else decode_segments(segments)
    kept = [info for info in record["segments_info"] if info["category_id"] >= 0 and not info["is_crowd"]]
    labels = np.array([info["category_id"] for info in kept], np.int64)
    masks = ids == np.array([info["id"] for info in kept], ids.dtype).reshape(-1, 1, 1)
    if per == "class":
        labels, owner = np.unique(labels, return_inverse=True)
        masks = np.array([masks[owner == c].any(0) for c in range(len(labels))], bool).reshape(-1, *ids.shape)
    return masks, labels


class MaskBatches:
    """index -> MaskBatch of this process's share. Every image comes once per epoch, in a new order; flipped, scaled
    and cropped at random.

    split: records of `load_split`.
    batch_size: B, a multiple of the number of processes, each of which loads only its `distributed.shard`.
    scale: the image's long side becomes S times a factor from this range (OpenSeg, section 4.1: 0.8 to 1.2); the image
        is then padded with `fill` or cropped to S x S. (1, 1) without flip gives the images as they are.
    per: see `record_masks`. Masks that a crop leaves empty are dropped.
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
    ):
        if len(split) == 0 or batch_size < 1 or size < 1 or not 0 < scale[0] <= scale[1]:
            given = f"{len(split)} records, batch_size={batch_size}, size={size}, scale={scale}"
            raise ValueError(f"got {given}, expected at least one of each and a range of positive factors")
        self.split, self.batch_size, self.size, self.seed = split, batch_size, size, seed
        self.scale, self.flip, self.per, self.fill = scale, flip, per, torch.tensor(fill).view(3, 1, 1)
        self._order = -1, np.empty(0, int)  # the last epoch's order

    def __call__(self, index: int) -> MaskBatch:
        count = distributed.world_size()
        if self.batch_size % count:
            raise ValueError(f"got batch_size={self.batch_size}, expected a multiple of the {count} processes")
        places = distributed.shard(range(index * self.batch_size, (index + 1) * self.batch_size))
        images, masks, labels, names = zip(*map(self._example, places), strict=True)
        return MaskBatch(torch.stack(images), list(masks), list(labels), list(names), self.batch_size)

    def _example(self, place: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
        epoch, number = divmod(place, len(self.split))
        if epoch != self._order[0]:
            self._order = epoch, np.random.default_rng((self.seed, epoch, len(self.split))).permutation(len(self.split))
        record = self.split[int(self._order[1][number])]
        rng = np.random.default_rng((self.seed, epoch, number))
        masks, labels = record_masks(record, self.per)
        image = transforms.to_dtype(transforms.to_image(read_image(record["image"])), torch.float32, scale=True)
        image, targets = self._placed(image, torch.from_numpy(masks), rng)
        kept = targets.flatten(1).any(1)
        return image, targets[kept], torch.from_numpy(labels)[kept], record["image_id"]

    def _placed(
        self, image: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flip, scale, and cut or fill to S x S, the same for picture and masks."""
        if self.flip and rng.random() < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
        factor = self.size * rng.uniform(*self.scale) / max(image.shape[1:])
        height, width = (max(1, round(side * factor)) for side in image.shape[1:])
        if (height, width) != tuple(image.shape[1:]):
            image = transforms.resize(image, [height, width], antialias=True)
            masks = F.interpolate(masks[:, None].float(), (height, width), mode="nearest-exact")[:, 0] > 0.5
        top, left = (_offset(side, self.size, rng) for side in (height, width))
        canvas = self.fill.expand(-1, self.size, self.size).clone()
        room = torch.zeros(len(masks), self.size, self.size, dtype=torch.bool)
        inside = (..., slice(max(0, -top), max(0, -top) + height), slice(max(0, -left), max(0, -left) + width))
        cut = (..., slice(max(0, top), max(0, top) + self.size), slice(max(0, left), max(0, left) + self.size))
        canvas[inside], room[inside] = image[cut], masks[cut]
        return canvas, room


def _offset(side: int, room: int, rng: np.random.Generator) -> int:
    """Where a window of `room` pixels starts on `side` pixels; negative where the picture lies inside the window."""
    return int(rng.integers(min(0, side - room), max(0, side - room) + 1))
