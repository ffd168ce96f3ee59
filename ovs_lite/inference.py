"""From an image of any size to scores and labels: resizing, sliding windows, the best class of every pixel.

B images of one size, K classes, H W pixels of the image, h w after resizing. Protocol of TCL (its section 4.1 and
released code): the short side is resized, windows slide by half their side, overlapping windows are averaged, the
average is resized to the image, argmax. Departure: images are resized with antialiasing unless a `Window` says
otherwise.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from ovs_lite.methods import Method
from ovs_lite.regions.score_maps import as_planes, best_of, enlarged

RESIZES = ("antialias", "bilinear")
ENLARGED_AT_ONCE = 1 << 21  # scores
Place = tuple[Any, slice, slice]  # rows and columns of a window, as an index of (..., h, w)


@dataclass(frozen=True)
class Window:
    """How images are resized and windows slide.

    short_side: the image's short side after resizing.
    side, stride: of the sliding window, and between windows.
    longest: the long side after resizing is at most this; longer images get a smaller short side.
    resize: "antialias" (Pillow's bilinear, whose filter widens with the reduction; the default) or "bilinear" (four
        neighbours whatever the reduction, as mmsegmentation and OpenCV resize in the released evaluations).
    Raises ValueError for sizes below one pixel, for a stride that would leave gaps and for another way of resizing.
    """

    short_side: int
    side: int
    stride: int
    longest: int = 2048
    resize: str = "antialias"

    def __post_init__(self):
        if min(self.short_side, self.side, self.stride, self.longest) < 1 or self.stride > self.side:
            raise ValueError(f"got {self}, expected positive sizes and a stride of at most the window's side")
        if self.resize not in RESIZES:
            raise ValueError(f"got resize={self.resize!r}, expected {' or '.join(map(repr, RESIZES))}")

    @classmethod
    def for_clip(cls, image_size: int) -> "Window":
        """Twice CLIP's own side, stride half of that: 128/64 for 64 px, 448/224 for 224 px, as TCL infers."""
        return cls(2 * image_size, 2 * image_size, image_size, longest=max(2048, 2 * image_size))


def resized_shape(height: int, width: int, window: Window) -> tuple[int, int]:
    """(H, W) after resizing: short side to `short_side`, long side at most `longest`, never below one pixel.

    Raises ValueError for an image without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"got an image of {height} x {width} pixels, expected at least one")
    scale = min(window.short_side / min(height, width), window.longest / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))  # as mmcv and detectron2 round


def resize_image(image: Image.Image, window: Window) -> torch.Tensor:
    """An RGB image at the scale of the windows: (3, h, w) uint8."""
    height, width = resized_shape(image.height, image.width, window)
    if window.resize == "antialias":
        return transforms.pil_to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
    bilinear = InterpolationMode.BILINEAR
    return transforms.resize(transforms.pil_to_tensor(image), [height, width], bilinear, antialias=False)


def window_starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along one axis; the last one is moved back to end at the border."""
    if length <= side:
        return [0]
    return sorted({*range(0, length - side, stride), length - side})


@dataclass(frozen=True)
class SlidingFeatures:
    """What a method keeps of all windows of B images, to be scored for any texts. Made by `encode_windows`.

    windows: the place of a window, and the method's features of it in all images.
    times: (h, w), how many windows cover a pixel.
    """

    method: Method
    windows: Iterable[tuple[Place, Any]]
    times: torch.Tensor

    @torch.no_grad()
    def scores(self, text: torch.Tensor, **options) -> torch.Tensor:
        """(K, D) -> (B, K, h, w): mean of the scores of all windows that cover a pixel. options: the method's own.

        Raises ValueError for no class.
        """
        if len(text) == 0:
            raise ValueError(f"got text {tuple(text.shape)}, expected (K, D) with at least one class")
        total = None
        for place, features in self.windows:
            found = self.method.scores(features, text, **options)
            if found.shape[-2:] == self.times.shape:  # one window holds everything
                return found.to(self.times.dtype)
            if total is None:
                total = self.times.new_zeros(len(found), len(text), *self.times.shape)
            total[place] += found
        return total.div_(self.times)


@dataclass(frozen=True)
class PartedScores:
    """Scores of K classes, made for a few of them at a time, and again at every reading: the memory is that of a few.

    features, text, options: as `SlidingFeatures.scores`; the features must allow a second reading. at_once: how many
    classes. `best_classes` and `resized_classes` read it like a tensor of scores.
    """

    features: SlidingFeatures
    text: torch.Tensor
    at_once: int
    options: dict[str, Any]

    def parts(self) -> Iterator[torch.Tensor]:
        """(B, K', h, w) of the next K' <= at_once classes, until all K came."""
        for text in self.text.split(self.at_once):
            yield self.features.scores(text, **self.options)


@torch.no_grad()
def encode_windows(method: Method, images: torch.Tensor, window: Window) -> SlidingFeatures:
    """(B, 3, h, w) normalised -> features of all windows, each encoded once.

    Windows at the same place of all images go through the method together. Raises ValueError for no pixel or image.
    """
    lazy = _sliding(method, images, window)
    return SlidingFeatures(method, list(lazy.windows), lazy.times)


def sliding_scores(method: Method, images: torch.Tensor, text: torch.Tensor, window: Window, **options) -> torch.Tensor:
    """`encode_windows` and `SlidingFeatures.scores` in one, holding the features of one window at a time."""
    return _sliding(method, images, window).scores(text, **options)


def scores_within(
    method: Method, images: torch.Tensor, text: torch.Tensor, window: Window, most: int, **options
) -> torch.Tensor | PartedScores:
    """`sliding_scores`; more than `most` values come in parts, where a method scores each class for itself.

    A part has one class at least, and at most half as many values, as the last one is still held while the next one is
    made. A method whose classes change each other's scores makes all at once.
    """
    at_once = max(1, most // (len(images) * images.shape[-2] * images.shape[-1]))
    if len(text) <= at_once or not method.scores_each_class_alone(**options):
        return sliding_scores(method, images, text, window, **options)
    return PartedScores(encode_windows(method, images, window), text, max(1, at_once // 2), options)


def _sliding(method: Method, images: torch.Tensor, window: Window) -> SlidingFeatures:
    """Features that can be scored once, encoded while they are scored."""
    if images.numel() == 0:
        raise ValueError(f"got images {tuple(images.shape)}, expected (B, 3, h, w) with at least one pixel")
    times = images.new_zeros(images.shape[-2:])
    starts = (window_starts(length, window.side, window.stride) for length in times.shape)
    places = [(..., *(slice(start, start + window.side) for start in corner)) for corner in product(*starts)]
    for place in places:
        times[place] += 1
    return SlidingFeatures(method, ((place, method.encode(images[place])) for place in places), times)


def encode_image(method: Method, image: Image.Image, window: Window | None = None) -> SlidingFeatures:
    """Features of an RGB image at the resized scale, B = 1. window: default `Window.for_clip`.

    Raises ValueError for a window of another type.
    """
    clip = method.clip
    if window is not None and not isinstance(window, Window):
        raise ValueError(f"got window={window!r}, expected an ovs_lite.inference.Window, or None")
    pixels = resize_image(image, window := window or Window.for_clip(clip.image_size))
    return encode_windows(method, normalised(method, pixels[None]), window)


def normalised(method: Method, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, h, w) uint8 RGB -> what the method takes, on its device."""
    return method.clip.normalise(transforms.to_dtype(pixels.to(method.clip.device), torch.float32, scale=True))


@torch.no_grad()
def panoptic_image(
    method: Method, image: Image.Image, text: torch.Tensor, is_thing: Sequence[bool], **options
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Segments of an RGB image, seen whole and as large as it is: ids (H, W) int64 with 0 = void, and what each is.

    text: (K, D). is_thing, options, errors: as `Method.panoptic`.
    """
    features = method.encode(normalised(method, transforms.pil_to_tensor(image)[None]))
    return method.panoptic(features, text, is_thing, **options)[0]


@torch.no_grad()
def named_image(
    method: Method, image: Image.Image, text: torch.Tensor, window: Window | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Proposals of an RGB image, seen whole at the resized scale: masks (N, H, W) in [0, 1] at the image's size, and
    their probabilities of the classes (N, K). text: (K, D). window: default `Window.for_clip`. Errors as
    `Method.regions`."""
    pixels = resize_image(image, window or Window.for_clip(method.clip.image_size))
    masks, probs = method.regions(method.encode(normalised(method, pixels[None])), text)[0]
    size = (image.height, image.width)
    return F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0], probs


def best_classes(
    scores: torch.Tensor | PartedScores, size: tuple[int, ...], present: np.ndarray | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K, h, w) -> the best score and its class (the first of equals) at `size` = (H, W), (B, H, W) each.

    Where a score is NaN so is the best one, and the class says nothing.
    present: (B, K) bool, the classes that compete in an image; default all. Those that compete in none are skipped.
    """
    used = None
    if present is not None:
        used = np.flatnonzero(present.any(0)) if present.any() else np.zeros(1, int)
        scores = _of_classes(scores, used)
    best = labels = None
    first = 0
    for part in _resized_parts(scores, size):
        following = first + part.shape[1]
        if present is not None:
            absent = torch.from_numpy(~present[:, used[first:following]]).to(part.device)
            part = part.masked_fill(absent[:, :, None, None], -torch.inf)
        values, places = best_of(part)
        places = places.int() + first if first else places.int()
        labels = places if best is None else torch.where(values > best, places, labels)
        best = values if best is None else torch.maximum(best, values)
        first = following
    return best, labels if used is None else torch.from_numpy(used).to(labels)[labels.long()]


def _of_classes(scores: torch.Tensor | PartedScores, used: np.ndarray) -> torch.Tensor | PartedScores:
    """The scores of some classes; others are not even made where scores come in parts."""
    if isinstance(scores, PartedScores):
        return replace(scores, text=scores.text[torch.from_numpy(used).to(scores.text.device)])
    return scores if len(used) == scores.shape[1] else scores[:, torch.from_numpy(used).to(scores.device)]


def resized_classes(scores: torch.Tensor | PartedScores, size: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """(B, K, h, w) -> K times (B, H, W), bilinear: a few classes at a time, to bound the memory."""
    for part in _resized_parts(scores, size):
        yield from as_planes(part).unbind(1)


def joined_classes(scores: torch.Tensor, owners: Sequence[int], size: tuple[int, ...]) -> np.ndarray:
    """(1, P, h, w) of P phrases -> (K, H, W) float32, each class the maximum of its phrases.

    owners: the class of a phrase; phrases of one class follow each other, and every class has one.
    """
    if scores.shape[-2:] == tuple(size) and len(owners) == owners[-1] + 1:  # nothing to enlarge, no second phrase
        return as_planes(scores)[0].float().numpy()
    joined, filled = torch.empty(owners[-1] + 1, *size), -1
    for plane, number in zip(resized_classes(scores, size), owners, strict=True):
        plane = plane[0].to(joined.dtype)
        joined[number] = torch.maximum(joined[number], plane) if number == filled else plane
        filled = number
    return joined.numpy()


def _resized_parts(scores: torch.Tensor | PartedScores, size: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """(B, K, h, w) -> all classes in turn, (B, K', H, W): as they come, or a few at a time where they are enlarged."""
    for part in scores.parts() if isinstance(scores, PartedScores) else (scores,):
        whole = part.shape[-2:] == tuple(size) or 0 in part.shape
        at_once = part.shape[1] if whole else max(1, ENLARGED_AT_ONCE // (len(part) * size[0] * size[1]))
        for some in part.split(max(1, at_once), 1):
            yield enlarged(some, size)
