"""Images of noise, and ramps that show where they were cropped: red is the column, green the row, blue the number."""

import numpy as np
import torch

STEP = 4  # between neighbouring pixels, in 255ths


def randn(*shape, seed=0, dtype=torch.float32):
    """Normally distributed values, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normal_images(height, width, batch=2, seed=0, dtype=torch.float32):
    """(B, 3, H, W), as if normalised."""
    return randn(batch, 3, height, width, seed=seed, dtype=dtype)


def noise(height, width, seed=0):
    """(H, W, 3) random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


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
