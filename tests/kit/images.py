"""Images of noise, and ramps that show where they were cropped: red is the column, green the row, blue the number."""

import numpy as np
import torch

CAPTIONS = ["a cat", "a red boat", "two owls", "a guitar on the grass"]
STEP = 4  # between neighbouring pixels, in 255ths


def randn(*shape, seed=0, dtype=torch.float32):
    """Normally distributed values, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normal_images(height, width, batch=2, seed=0, dtype=torch.float32):
    """(B, 3, H, W), as if normalised."""
    return randn(batch, 3, height, width, seed=seed, dtype=dtype)


def captioned_images(step):
    """(4, 3, 64, 64) in [0, 1] and their captions; other values at every step."""
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(step)), CAPTIONS


def noise(height, width, seed=0):
    """(H, W, 3) random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def disk(height=96, width=128):
    """The mask of a disk of radius 20."""
    y, x = np.mgrid[:height, :width]
    return (x - 40) ** 2 + (y - 50) ** 2 < 20**2


def disk_and_square(height=96, width=128, stripe=False):
    """(H, W, 3): a red disk, through which an orange stripe may go, and a blue square on noisy green ground."""
    image = np.full((height, width, 3), (40, 160, 60))
    image[disk(height, width)] = (210, 30, 30)
    if stripe:
        image[disk(height, width) & (abs(np.mgrid[:height, :width][0] - 50) < 4)] = (240, 120, 30)
    image[20:50, 80:115] = (30, 40, 200)
    return np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def random_masks(count, height=48, width=72, smallest=2, filled=0.7, seed=3):
    """(count, H, W) Boolean: rectangles with holes; `filled` is the share of their pixels that are no holes."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height - 9), rng.integers(0, width - 9)
        mask[y : y + rng.integers(smallest, 30), x : x + rng.integers(smallest, 30)] = True
        mask &= rng.random((height, width)) < filled
    return torch.from_numpy(masks)


def ramp(height, width, number=0):
    """(H, W, 3): red grows with the column, green with the row; sides up to 60."""
    columns, rows = np.arange(width) * STEP, np.arange(height)[:, None] * STEP
    return np.stack([np.tile(columns, (height, 1)), np.tile(rows, width), np.full((height, width), number)], -1)


def box_of(image):
    """(top, left, height, width, mirrored) of the crop that became `image`, (3, S, S) of a ramp, by straight lines
    through the inner half of its rows and columns. S must be large, because the values are rounded."""
    size, found = image.shape[-1], []
    inner = np.arange(size // 4, size - size // 4)
    for profile in (image[1].mean(1), image[0].mean(0)):
        slope, start = np.polyfit(inner + 0.5, profile.double().numpy()[inner] * 255 / STEP + 0.5, 1)
        found.append((start + min(0, slope * size), abs(slope) * size, slope < 0))
    (top, height, _), (left, width, mirrored) = found
    return round(top), round(left), round(height), round(width), bool(mirrored)
