"""How the image of an image-text pair is changed at random for training.

"crop" takes a random crop. "strong" is close to the recipe of TCL's release (timm: RandAugment m9-mstd0.5-inc1, then
random erasing with probability 0.25 in pixel mode), made of torchvision's transforms: two of RandAugment's operations,
each with probability 0.5, at 9 of 10 levels, then random erasing with probability 0.25.
Departures: RandAugment's level is always 9 (timm's has a normal distribution around it, of standard deviation 0.5); its
operations are torchvision's 14, so none inverts or adds to dark pixels, one does nothing, and the strongest
posterisation leaves 4 bits; resampling is always bilinear.
S pixels of the square that a model sees.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

KINDS = ("crop", "strong")
RATIO = (3 / 4, 4 / 3)  # width over height of a crop
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """(PIL RGB image, whether to mirror it, generator) -> (3, S, S) RGB in [0, 1].

    kind: "crop" or "strong". The latter draws from torch's global generator, seeded for each image and put back
        afterwards: not in a thread next to others, who might draw in between.
    size: S.
    crop_area: range of a crop's share of the image's area.
    Raises ValueError for settings that cannot be, RuntimeError where "strong" is asked in a thread.
    """

    kind: str
    size: int
    crop_area: tuple[float, float]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"got augment={self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.size < 1 or not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            given = f"size={self.size}, crop_area={self.crop_area}"
            raise ValueError(f"got {given}, expected at least one pixel and a range in (0, 1]")

    def __call__(self, image: Image.Image, mirrored: bool, rng: np.random.Generator) -> torch.Tensor:
        top, left, height, width = crop_box(image.height, image.width, self.crop_area, rng)
        pixels = F.to_image(image)[:, top : top + height, left : left + width]
        pixels = F.resize(pixels, [self.size, self.size], antialias=True)  # of uint8: twice as fast
        pixels = pixels.flip(-1) if mirrored else pixels
        if self.kind == "crop":
            return F.to_dtype(pixels, torch.float32, scale=True)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError('got augment="strong" in a thread, expected the main thread or workers >= 1 (processes)')
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))  # not the GPUs', as torch.manual_seed
            return _strong()(pixels)


def crop_box(height: int, width: int, area: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws them, but by a generator that is given.

    Where no attempt fits into the image: the largest box at its centre whose shape RATIO allows.
    """
    for _ in range(CROP_ATTEMPTS):
        pixels = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        h, w = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 1 <= h <= height and 1 <= w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h, w = max(1, min(height, round(width / RATIO[0]))), max(1, min(width, round(height * RATIO[1])))
    return (height - h) // 2, (width - w) // 2, h, w


@cache
def _strong() -> Callable[[torch.Tensor], torch.Tensor]:
    """(3, S, S) uint8 -> (3, S, S) in [0, 1]; draws from torch's global generator. Noise is normal in units of
    ImageNet's mean and standard deviation, as released, then clipped to [0, 1]."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # a second of imports

    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    fill = [round(255 * value) for value in IMAGENET_DEFAULT_MEAN]
    levels = {"magnitude": 9, "num_magnitude_bins": 11, "interpolation": v2.InterpolationMode.BILINEAR, "fill": fill}
    operation = v2.RandomApply([v2.RandAugment(num_ops=1, **levels)], p=0.5)
    scaled, normal = v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean.tolist(), std.tolist())
    back = v2.Normalize((-mean / std).tolist(), (1 / std).tolist())
    erasing, clipped = v2.RandomErasing(p=0.25, value="random"), v2.Lambda(lambda pixels: pixels.clamp(0, 1))
    return v2.Compose([operation, operation, scaled, normal, erasing, back, clipped])
