"""How well does a promptable segmenter find annotated masks? 1-point and 1-box IoU with an oracle: Uni-OVSeg, Fig. 3.

Uni-OVSeg (Wang et al., 2024), appendix B. "1-point": the best IoU with any mask that a uniform grid of points gave, not
a point on the object. "1-box": the mask's own tight box as prompt, the best of its outputs. Next to the paper's two,
"inner point": a random pixel of the mask as prompt, the best of its outputs, as a click on an object. The paper does
not say over what it averages; here every mask counts alike, whichever image has it, and the interval is over images.
N images, M masks of one image, P prompts, K masks for each, H W pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch

from ovs_lite.clip.crops import mask_boxes
from ovs_lite.data.images import read_image
from ovs_lite.data.segments import record_masks
from ovs_lite.evaluation.blocks import PER_IMAGE
from ovs_lite.evaluation.metrics.intervals import Estimate, ratio_interval
from ovs_lite.evaluation.metrics.oracle_iou import best_of_all, best_of_own

# prompt(seen, points, boxes) -> masks (P, K, H, W) in [0, 1] at the image's size, predicted quality (P, K).
# seen: what `look` made of the image. points: (P, 2) float32 x, y, or None. boxes: (P, 4) float32 XYXY, or None; one of
# them is given. Both in pixels from the image's top left corner: the first pixel spans 0..1 and its centre is 0.5.
Prompt = Callable[[Any, torch.Tensor | None, torch.Tensor | None], tuple[torch.Tensor, Any]]
PAPER = ("1-point", "1-box")
KINDS = (*PAPER, "inner point")
GRID = 20  # points in a row, as the paper tests
AT_ONCE = 100  # prompts, as in the released code


@dataclass(frozen=True)
class PromptReport:
    """What `evaluate_promptable` measured.

    image_ids: N images. overlaps: {kind: per image the (M,) float64 IoU of each mask}.
    protocol: how it was measured.
    """

    image_ids: tuple[str, ...] = field(repr=False)
    overlaps: dict[str, tuple[np.ndarray, ...]] = field(repr=False)
    protocol: dict[str, Any]

    @property
    def masks(self) -> int:
        """How many annotated masks there are."""
        return sum(map(len, next(iter(self.overlaps.values()))))

    def iou(self, kind: str) -> Estimate:
        """The mean IoU over all masks and its 95 % interval over images. Raises ValueError without any mask."""
        return ratio_interval(*self._sums(kind))

    def difference(self, other: "PromptReport", kind: str) -> Estimate:
        """This mean IoU minus another segmenter's on the same images, and its interval.

        Raises ValueError for other images or masks.
        """
        (sums, counts), (others, other_counts) = self._sums(kind), other._sums(kind)
        if self.image_ids != other.image_ids or (counts != other_counts).any():
            given = f"{len(other.image_ids)} images with {other.masks} masks"
            raise ValueError(f"got a report on {given}, expected the same {len(self.image_ids)} with {self.masks}")
        return ratio_interval(sums - others, counts)

    def _sums(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        if kind not in self.overlaps:
            raise ValueError(f"got kind {kind!r}, expected one of {', '.join(self.overlaps)}")
        found = self.overlaps[kind]
        return np.array([one.sum() for one in found]), np.array([len(one) for one in found])


def evaluate_promptable(
    prompt: Prompt,
    records: Iterable[Mapping[str, Any]],
    *,
    look: Callable[[np.ndarray], Any] = lambda image: image,
    kinds: Sequence[str] = PAPER,
    grid: int = GRID,
    at_once: int = AT_ONCE,
    seed: int = 0,
    **protocol: Any,
) -> PromptReport:
    """Ask a segmenter for the masks of points or boxes and compare them with every record's annotated masks.

    prompt: see `Prompt`; a mask is where its value exceeds 0.5, the predicted quality is not used.
    records: their labelled segments, without crowds, or their `masks`.
    look: (H, W, 3) uint8 RGB -> what `prompt` takes, called once for an image, so that features need not be computed
        for every part of the prompts; default the image itself.
    kinds: of KINDS. grid: points in a row and in a column. at_once: how many prompts are given together; never more
        masks than theirs are held. seed: of inner points, which depend on it and on the image's name alone.
    protocol: facts to keep in the report.
    Raises ValueError for unknown kinds, numbers below 1 and masks of another shape.
    """
    counter = PromptCounter(prompt, look, tuple(kinds), grid, at_once, seed, protocol)
    return counter.report(*counter.count(records))


@dataclass(frozen=True)
class PromptCounter:
    """Compares a segmenter's answers with the masks of images one by one; see `evaluate_promptable`."""

    prompt: Prompt
    look: Callable[[np.ndarray], Any] = lambda image: image
    kinds: tuple[str, ...] = PAPER
    grid: int = GRID
    at_once: int = AT_ONCE
    seed: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not self.kinds or set(self.kinds) - set(KINDS) or self.grid < 1 or self.at_once < 1:
            given = f"kinds={self.kinds!r}, grid={self.grid}, at_once={self.at_once}"
            raise ValueError(f"got {given}, expected some of {', '.join(KINDS)} and numbers of at least 1")

    @torch.no_grad()
    def count(self, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], dict[str, np.ndarray]]:
        """Names of N images; per kind the (masks of all,) float64 IoU, and how many of them each image has."""
        ids, overlaps = [], {kind: [] for kind in self.kinds}
        for record in records:
            image = np.array(read_image(record["image"]))
            targets = torch.from_numpy(record_masks(record)[0])
            ask = partial(_answer, self.prompt, self.look(image) if len(targets) else None, image.shape[:2])
            for kind, found in overlaps.items():
                prompts = _prompts(kind, record, targets, self.grid, self.seed)
                found.append(_best(ask, targets, prompts, self.at_once).cpu().numpy())
            ids.append(record["image_id"])
        counts = {kind: np.concatenate([np.zeros(0), *found]) for kind, found in overlaps.items()}
        sizes = {kind + PER_IMAGE: np.array([len(one) for one in found], np.int64) for kind, found in overlaps.items()}
        return ids, counts | sizes

    def report(self, image_ids: Sequence[str], counts: Mapping[str, np.ndarray]) -> PromptReport:
        """What was found in N images."""
        ends = {kind: np.cumsum(counts[kind + PER_IMAGE])[:-1] for kind in self.kinds}
        overlaps = {kind: tuple(np.split(counts[kind], ends[kind])) for kind in self.kinds}
        known = {"grid": self.grid, "seed": self.seed, **self.protocol}
        return PromptReport(tuple(image_ids), overlaps if image_ids else dict.fromkeys(self.kinds, ()), known)


def surest(prompt: Prompt, thresholds: Sequence[float] = (0.5,)) -> Prompt:
    """Ask as `prompt` does, for its mask of the highest predicted quality alone, cut at T thresholds: T masks, 0 or 1.

    thresholds: in [0, 1]; a pixel is inside where the mask's value exceeds it. With one, the opponent of several masks;
    with several, the control of the best of them: as many answers, of one granularity.
    What is returned gives masks (P, T, H, W), in the order of the thresholds, and the quality of that mask (P, T).
    Raises ValueError for no threshold, or one outside of [0, 1].
    """
    cuts = torch.tensor(thresholds, dtype=torch.float32)
    if not len(cuts) or not ((cuts >= 0) & (cuts <= 1)).all():
        raise ValueError(f"got thresholds {tuple(thresholds)}, expected at least one, each in 0..1")

    def ask(seen: Any, points: torch.Tensor | None, boxes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        masks, quality = prompt(seen, points, boxes)
        best, which = quality.max(1, keepdim=True)
        mask = masks[torch.arange(len(masks), device=masks.device)[:, None], which]  # (P, 1, H, W)
        return (mask > cuts.to(mask.device)[:, None, None]).float(), best.expand(-1, len(cuts))

    return ask


def point_grid(height: int, width: int, grid: int = GRID) -> torch.Tensor:
    """(grid * grid, 2) float32 x, y in pixels, row by row: the centres of grid x grid equal cells of the image."""
    steps = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(steps * height, steps * width, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def inner_points(masks: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(M, H, W) bool, none empty -> (M, 2) float32 x, y in pixels: the centre of a random pixel of each."""
    pixels = (mask.nonzero() for mask in masks)
    chosen = [some[int(rng.integers(len(some)))].flip(0) for some in pixels]
    return torch.stack(chosen).float() + 0.5 if chosen else torch.zeros(0, 2)


def _prompts(
    kind: str, record: Mapping[str, Any], targets: torch.Tensor, grid: int, seed: int
) -> tuple[str, torch.Tensor]:
    """Whether points of all targets, a point or a box of each, and these."""
    if kind == "1-point":
        return "everywhere", point_grid(*targets.shape[1:], grid)
    if kind == "1-box":
        return "boxes", mask_boxes(targets).float()
    return "points", inner_points(targets, np.random.default_rng((seed, crc32(record["image_id"].encode()))))


def _best(
    ask: Callable[..., torch.Tensor], targets: torch.Tensor, prompts: tuple[str, torch.Tensor], at_once: int
) -> torch.Tensor:
    """(M,) best IoU of each target: with any mask of all points, or with those of its own point or box."""
    way, given = prompts
    if not len(targets):
        return torch.zeros(0, dtype=torch.float64)
    if way == "everywhere":
        return best_of_all((ask(some, None).flatten(0, 1) for some in given.split(at_once)), targets)
    pairs = zip(given.split(at_once), targets.split(at_once), strict=True)
    answers = ((ask(some, None) if way == "points" else ask(None, some), own) for some, own in pairs)
    return torch.cat([best_of_own(*one) for one in answers])


def _answer(
    prompt: Prompt, seen: Any, size: tuple[int, int], points: torch.Tensor | None, boxes: torch.Tensor | None
) -> torch.Tensor:
    masks, _ = prompt(seen, points, boxes)
    count = len(boxes if points is None else points)
    if masks.ndim != 4 or len(masks) != count or tuple(masks.shape[2:]) != size:
        expected = f"({count}, K, {size[0]}, {size[1]})"
        raise ValueError(f"got masks {tuple(masks.shape)} for {count} prompts, expected {expected}")
    return masks
