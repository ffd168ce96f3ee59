"""Batches of regions with a word each, mined by `ovs-lite mine`: batch i is a function of (seed, i) alone.

B regions in the batch of all processes, b of them in this one, S pixels of the square that CLIP sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.data.images import read_image
from ovs_lite.data.loaders.places import Places
from ovs_lite.data.rle import decode_rle


@dataclass(frozen=True)
class RegionBatch:
    """This process's share of a batch.

    images: (b, 3, S, S) RGB in [0, 1], blank outside the region.
    masks: (b, S, S) bool, which pixels are the region's.
    words: list of b words.
    image_ids: list of b names.
    total: B.
    """

    images: torch.Tensor
    masks: torch.Tensor
    words: list[str]
    image_ids: list[str]
    total: int


class RegionBatches:
    """index -> RegionBatch of this process's share. Every pair comes once per epoch, in a new order.

    split: records of a split of mined pairs, each a crop, its region's mask and its word.
    fill: RGB in [0, 1] of what is blank, CLIP's mean colour.
    area: least share of a crop that is kept, at random. OVSeg's released trainer takes 0.9 to 1 of the area, of a new
        shape. Departure: crops keep their shape up to that, else long regions would be cut to 4 : 3.
    margin: half of the crops stand on a blank canvas that is larger by up to this share of their sides on every side;
        0, as released: none.
    The crop is blanked, then warped to S x S, bicubic without antialiasing; its mask takes the nearest pixel: both as
    in inference (`clip.crops.masked_crops`).
    """

    def __init__(
        self,
        split: datasets.Dataset | Sequence[dict[str, Any]],
        batch_size: int,
        size: int,
        fill: tuple[float, float, float],
        seed: int = 0,
        area: float = 0.9,
        margin: float = 0.0,
    ):
        if len(split) == 0 or batch_size < 1 or size < 1 or not 0 < area <= 1 or margin < 0:
            given = f"{len(split)} records, batch_size={batch_size}, size={size}, area={area}, margin={margin}"
            raise ValueError(f"got {given}, expected at least one of each, a share in (0, 1] and a margin >= 0")
        self.split, self.batch_size, self.size, self.seed = split, batch_size, size, seed
        self.area, self.margin = area, margin
        self.places, self.fill = Places(len(split), batch_size, seed), torch.tensor(fill).view(3, 1, 1)

    def __call__(self, index: int) -> RegionBatch:
        examples = (self._example(*place) for place in self.places(index))
        images, masks, words, names = zip(*examples, strict=True)
        return RegionBatch(torch.stack(images), torch.stack(masks), list(words), list(names), self.batch_size)

    def _example(self, epoch: int, number: int, row: int) -> tuple[torch.Tensor, torch.Tensor, str, str]:
        record = self.split[row]
        image = transforms.to_dtype(transforms.to_image(read_image(record["image"])), torch.float32, scale=True)
        mask = torch.from_numpy(decode_rle(record["masks"][0])).bool()
        blanked = torch.where(mask, image, self.fill)
        rng = np.random.default_rng((self.seed, epoch, number))
        rows, columns = self._window(mask.shape, rng)
        blanked, mask = blanked[:, rows, columns], mask[rows, columns]
        if self.margin and rng.random() < 0.5:
            blanked, mask = self._on_canvas(blanked, mask, rng)
        size = [self.size, self.size]
        bicubic = InterpolationMode.BICUBIC
        crop = transforms.resize(blanked, size, interpolation=bicubic, antialias=False)
        inside = F.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0] > 0
        return crop, inside, record["captions"][0], record["image_id"]

    def _window(self, shape: Sequence[int], rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns that are kept: each side by at least the root of `area`, at a random place."""
        found = []
        for side in shape:
            kept = max(1, round(side * rng.uniform(self.area**0.5, 1)))
            start = int(rng.integers(side - kept + 1))
            found.append(slice(start, start + kept))
        return found[0], found[1]

    def _on_canvas(
        self, image: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Crop and mask with blank margins of random widths."""
        height, width = mask.shape
        left, right, top, bottom = (round(side * self.margin * rng.random()) for side in (width, width, height, height))
        canvas = self.fill.expand(-1, top + height + bottom, left + width + right).clone()
        canvas[:, top : top + height, left : left + width] = image
        return canvas, F.pad(mask, (left, right, top, bottom))
