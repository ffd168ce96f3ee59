"""Prompts for training, drawn from masks: a function of the batch's index alone, as the batches are.

b images of this process, P points, Q boxes of each image, M masks, S pixels of the square that a model sees. The paper
leaves open how prompts are drawn in training; its released settings name a grid of 10 x 10 points. Departure: a point
falls anywhere into a mask that is drawn first, so that small masks are asked for as often as large ones.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ovs_lite.data.loaders.mask_batches import MaskBatches


@dataclass(frozen=True)
class Prompts:
    """places: (b, P, 2) XY or (b, P, 4) XYXY in [0, 1]. wanted: (b, P) int64, the mask that each was drawn from, -1 in
    an image without masks."""

    places: torch.Tensor
    wanted: torch.Tensor


@dataclass(frozen=True)
class PromptBatch:
    """This process's share of a batch: as `MaskBatch`, with prompts instead of labels and words.

    images: (b, 3, S, S) RGB in [0, 1]. masks: list of b (M, S, S) bool, M may be 0. total: images of all processes.
    """

    images: torch.Tensor
    masks: list[torch.Tensor]
    points: Prompts
    boxes: Prompts
    image_ids: list[str]
    total: int


class PromptBatches:
    """index -> `PromptBatch` of this process's share.

    batches: whose images and masks these are.
    points, boxes: prompts per image. jitter: see `jittered_box`.
    areas: masks whose share of the square lies outside are left out, neither asked for nor targets. Those of less than
        a few pixels of the predictions cannot be learned; the released settings have 0.001 (or 0.0001) and 0.8.
    most_masks: of an image with more, as many are kept at random.
    """

    def __init__(
        self,
        batches: MaskBatches,
        points: int,
        boxes: int,
        jitter: float = 0.05,
        areas: tuple[float, float] = (0.0, 1.0),
        most_masks: int = 40,
    ):
        self.batches, self.points, self.boxes = batches, points, boxes
        self.jitter, self.areas, self.most_masks = jitter, areas, most_masks

    def __call__(self, index: int) -> PromptBatch:
        batch, found = self.batches(index), []
        for masks, (epoch, number, _) in zip(batch.masks, self.batches.places(index), strict=True):
            rng = np.random.default_rng((self.batches.seed, epoch, number, 1))  # 1: not the images' own
            shares = masks.flatten(1).float().mean(1)
            masks = masks[(shares >= self.areas[0]) & (shares <= self.areas[1])]
            masks = masks[np.sort(rng.permutation(len(masks))[: self.most_masks])]
            found.append((masks, *self._points(masks.numpy(), rng), *self._boxes(masks.numpy(), rng)))
        masks, *prompts = zip(*found, strict=True)
        places, wanted, corners, boxed = (torch.from_numpy(np.stack(some)) for some in prompts)
        points, boxes = Prompts(places, wanted), Prompts(corners, boxed)
        return PromptBatch(batch.images, list(masks), points, boxes, batch.image_ids, batch.total)

    def _points(self, masks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        wanted = _drawn(len(masks), self.points, rng)
        places = [random_point(masks[mask], rng) if mask >= 0 else rng.random(2) for mask in wanted]
        return np.array(places, np.float32).reshape(-1, 2), wanted

    def _boxes(self, masks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        wanted = _drawn(len(masks), self.boxes, rng)
        whole = np.array([0.0, 0, 1, 1])
        boxes = [jittered_box(masks[mask], self.jitter, rng) if mask >= 0 else whole for mask in wanted]
        return np.array(boxes, np.float32).reshape(-1, 4), wanted


def random_point(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool, not empty -> (x, y) in [0, 1], anywhere in a pixel of the mask."""
    pixels = np.flatnonzero(mask)
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), mask.shape[1])
    return (np.array([x, y]) + rng.uniform(0.01, 0.99, 2)) / mask.shape[::-1]  # off the edges, which rounding crosses


def jittered_box(mask: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool, not empty -> XYXY in [0, 1]: its box, every edge moved by up to `jitter` of the box's side."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / np.tile(mask.shape[::-1], 2)
    sides = np.tile(box[2:] - box[:2], 2)
    return (box + sides * rng.uniform(-jitter, jitter, 4)).clip(0, 1)


def _drawn(masks: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` numbers of masks, none again before all were drawn; -1 where there is none."""
    if not masks:
        return np.full(count, -1)
    turns = [rng.permutation(masks) for _ in range(-(-count // masks))]
    return np.concatenate([*turns, np.empty(0, np.int64)])[:count].astype(np.int64)
