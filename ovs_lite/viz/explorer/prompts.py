"""Words and clicks together: what points and boxes select goes to one word. H W pixels, P prompts, N granularities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch

from ovs_lite.viz.explorer.content import Result


@dataclass(frozen=True)
class Prompted:
    """A `Result` after prompts. labels, logits, queries: as there. selected: (H, W) bool, what the prompts select."""

    labels: np.ndarray
    logits: np.ndarray
    queries: list[str]
    selected: np.ndarray


def check_points(points: Sequence[Any], size: tuple[int, int]) -> list[tuple[float, float, bool]]:
    """P times [x, y] or [x, y, positive] inside an image of size (H, W). Raises ValueError for others."""
    found = []
    for point in points:
        good = isinstance(point, list | tuple) and len(point) in (2, 3) and _numbers(point[:2])
        if not good or not (0 <= point[0] <= size[1] and 0 <= point[1] <= size[0]):
            raise ValueError(f"got the point {point!r}, expected [x, y, positive] inside {size[1]} x {size[0]} pixels")
        found.append((float(point[0]), float(point[1]), bool(point[2]) if len(point) == 3 else True))
    return found


def check_boxes(boxes: Sequence[Any], size: tuple[int, int]) -> list[tuple[float, ...]]:
    """P times [x0, y0, x1, y1], right and bottom exclusive, inside (H, W). Raises ValueError for others."""
    for box in boxes:
        good = isinstance(box, list | tuple) and len(box) == 4 and _numbers(box)
        if not good or not (0 <= box[0] < box[2] <= size[1] and 0 <= box[1] < box[3] <= size[0]):
            raise ValueError(f"got the box {box!r}, expected [x0, y0, x1, y1] inside {size[1]} x {size[0]} pixels")
    return [tuple(float(value) for value in box) for box in boxes]


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Real) for value in values)


def prompted(result: Result, masks_at: Callable, points: Sequence[Any], boxes: Sequence[Any]) -> Prompted:
    """A result in which what the prompts select belongs to the word with the highest mean score there.

    masks_at: as `EncodedImage.masks_at`. points, boxes: checked. Selected is what a positive point or a box selects and
    no negative point does; of a point's N masks the one of the highest predicted IoU. With negative points alone the
    whole image but theirs keeps its labels. Pixels that are not selected become -1.
    """
    empty = np.zeros(result.labels.shape, bool)
    masks = list(_best(*masks_at(points=[point[:2] for point in points]))) if points else []
    adds = [mask for mask, point in zip(masks, points, strict=True) if point[2]]
    adds += list(_best(*masks_at(boxes=list(boxes)))) if boxes else []
    takes = [mask for mask, point in zip(masks, points, strict=True) if not point[2]]
    selected = np.logical_or.reduce(adds or [~empty]) & ~np.logical_or.reduce(takes or [empty])
    labels = np.where(selected, result.labels, -1)
    if selected.any() and adds:
        word = int(np.asarray(result.logits)[:, selected].mean(1).argmax())
        labels = np.where(selected, word, -1)
    return Prompted(labels, result.logits, result.queries, selected)


def _best(masks: torch.Tensor, quality: torch.Tensor) -> np.ndarray:
    """(P, N, H, W) soft, (P, N) -> (P, H, W) bool: of each prompt the mask of the highest predicted IoU."""
    return (masks[torch.arange(len(masks)), quality.argmax(1)] > 0.5).cpu().numpy()
