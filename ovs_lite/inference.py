"""From a picture of any size to scores and labels: resizing, sliding windows, the background rule.

K classes, H W pixels of the picture. Protocol of TCL (its section 4.1 and released code): the short side is resized,
windows slide by half their side, overlapping windows are averaged, the average is resized to the picture, argmax.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.methods import Method


@dataclass(frozen=True)
class Window:
    """short_side: the picture's short side after resizing. side: of the sliding window. stride: between windows.

    longest: the long side after resizing is at most this; pictures that are longer get a smaller short side.
    Raises ValueError for sizes below one pixel and for a stride that would leave gaps between windows.
    """

    short_side: int
    side: int
    stride: int
    longest: int = 2048

    def __post_init__(self):
        if min(self.short_side, self.side, self.stride, self.longest) < 1 or self.stride > self.side:
            raise ValueError(f"got {self}, expected positive sizes and a stride of at most the window's side")

    @classmethod
    def for_clip(cls, image_size: int) -> "Window":
        """Twice CLIP's own side, stride half of that: 128/64 for 64 px, 448/224 for 224 px, as TCL infers."""
        return cls(2 * image_size, 2 * image_size, image_size, longest=max(2048, 2 * image_size))


def resized_shape(height: int, width: int, window: Window) -> tuple[int, int]:
    """(H, W) after resizing: short side to `short_side`, long side at most `longest`, never below one pixel.

    Raises ValueError for a picture without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"got a picture of {height} x {width} pixels, expected at least one")
    scale = min(window.short_side / min(height, width), window.longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def window_starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along one axis; the last one is moved back to end at the border."""
    if length <= side:
        return [0]
    return sorted({*range(0, length - side, stride), length - side})


@torch.no_grad()
def sliding_scores(method: Method, images: torch.Tensor, text: torch.Tensor, window: Window, **options) -> torch.Tensor:
    """(B, 3, h, w) normalised, (K, D) -> (B, K, h, w): mean of the scores of all windows that cover a pixel.

    Windows at the same place of all pictures go through the method together. Raises ValueError for no class, pixel or
    picture.
    """
    if len(text) == 0 or images.numel() == 0:
        shapes = f"images {tuple(images.shape)} and text {tuple(text.shape)}"
        raise ValueError(f"got {shapes}, expected (B, 3, h, w) and (K, D) with at least one pixel and one class")
    height, width = images.shape[-2:]
    tops = window_starts(height, window.side, window.stride)
    lefts = window_starts(width, window.side, window.stride)
    if len(tops) == len(lefts) == 1:
        return method.predict(images, text, **options).to(images.dtype)
    total = images.new_zeros(len(images), len(text), height, width)
    times = images.new_zeros(height, width)
    for top, left in product(tops, lefts):
        part = (..., slice(top, top + window.side), slice(left, left + window.side))
        total[part] += method.predict(images[part], text, **options)
        times[part] += 1
    return total.div_(times)


@torch.no_grad()
def segment_scores(
    method: Method, image: Image.Image, text: torch.Tensor, window: Window | None = None, **options
) -> torch.Tensor:
    """Scores of an RGB picture at the resized scale: (1, K, h, w). window: default `Window.for_clip`."""
    clip = method.clip
    window = window or Window.for_clip(clip.image_size)
    height, width = resized_shape(image.height, image.width, window)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = transforms.to_dtype(transforms.to_image(resized), torch.float32, scale=True)
    return sliding_scores(method, clip.normalise(pixels[None].to(clip.device)), text, window, **options)


def enlarge(scores: torch.Tensor, height: int, width: int) -> np.ndarray:
    """(1, K, h, w) -> (K, H, W) float32 at the picture's size, bilinear, one class at a time to bound the memory."""
    result = np.empty((scores.shape[1], height, width), dtype=np.float32)
    for k in range(scores.shape[1]):
        plane = F.interpolate(scores[:, k : k + 1], (height, width), mode="bilinear", align_corners=False)
        result[k] = plane[0, 0].cpu().numpy()
    return result


def label_pixels(logits: np.ndarray, background: float | None = None) -> np.ndarray:
    """(K, H, W) scores -> (H, W) int64: the best class, or -1 where `background` is given and beats every class.

    Raises ValueError where there is no class to choose from.
    """
    if logits.ndim != 3 or len(logits) == 0:
        raise ValueError(f"got scores of shape {logits.shape}, expected (K, H, W) with K >= 1")
    labels = logits.argmax(0).astype(np.int64)
    if background is not None:
        labels[logits.max(0) < background] = -1
    return labels
