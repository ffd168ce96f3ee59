"""What an evaluation of segmentation counted, per image. N images, C classes that are counted.

How sure its mIoU is: `ovs_lite.evaluation.metrics.intervals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ovs_lite.evaluation.metrics.confusion import SegmentationScores, scores_of_counts


@dataclass(frozen=True)
class SegmentationReport:
    """What `evaluate_segmentation` counted. Of several thresholds of the background the best one is reported.

    names: C classes.
    image_ids: N images.
    counts: {background threshold: (N, 3, C) int32}, per image the pixels of each class that are right, predicted and
        target; ignored pixels are left out. The only key is None without a background.
    ignored: pixels left out, of all images.
    protocol: how it was measured.
    grounding: the same images where in each only the classes of its ground truth competed, if that was asked for.
    card: a `ProtocolCard`, of what `ovs_lite.evaluation.run` measured.
    """

    names: tuple[str, ...]
    image_ids: tuple[str, ...] = field(repr=False)
    counts: dict[float | None, np.ndarray] = field(repr=False)
    ignored: int
    protocol: dict[str, Any]
    grounding: "SegmentationReport | None" = field(default=None, repr=False)
    card: Any = field(default=None, repr=False, compare=False)

    @property
    def images(self) -> int:
        """N."""
        return len(self.image_ids)

    @property
    def by_background(self) -> dict[float, SegmentationScores]:
        """Scores at every background threshold; empty for a vocabulary without background."""
        return {number: self._scores(number) for number in self.counts if number is not None}

    @property
    def background(self) -> float | None:
        """The threshold with the highest mIoU (ties: the first). It is chosen on the evaluated images, so the score is
        slightly optimistic.
        """
        return max(self.counts, key=lambda number: np.nan_to_num(self._scores(number).miou))

    @property
    def absent(self) -> str:
        """The protocol's convention for absent classes, see `scores_of_counts`; "union" unless it says otherwise."""
        return self.protocol.get("absent", "union")

    @property
    def scores(self) -> SegmentationScores:
        """Scores over all images at `background`. Raises ValueError where there is no image."""
        return self._scores(self.background)

    def scores_by(self, absent: str) -> SegmentationScores:
        """`scores` with another convention for absent classes, see `scores_of_counts`."""
        return self._scores(self.background, absent)

    def group_miou(self, names: Sequence[str]) -> float:
        """mIoU of some of the classes at `background`, while all have competed; NaN where none of them occurs."""
        iou = self.scores.iou[[self.names.index(name) for name in names]]
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    @property
    def per_image(self) -> np.ndarray:
        """(N, 3, C) int32: right, predicted and target pixels at `background`."""
        return self.counts[self.background]

    def at(self, background: float) -> "SegmentationReport":
        """The report at one of several thresholds alone. Raises ValueError for one that was not measured."""
        if background not in self.counts:
            raise ValueError(f"got background={background!r}, expected one of {', '.join(map(str, self.counts))}")
        counts = {background: self.counts[background]}
        return replace(self, counts=counts, grounding=self.grounding and self.grounding.at(background))

    def only(self, names: Sequence[str]) -> "SegmentationReport":
        """The report on some of the classes, while all have competed. Raises ValueError for names that are none."""
        if unknown := [name for name in names if name not in self.names] or not names:
            raise ValueError(f"got classes {unknown or names}, expected some of those that were counted")
        chosen = [self.names.index(name) for name in names]
        counts = {number: rows[:, :, chosen] for number, rows in self.counts.items()}
        found = replace(self, names=tuple(names), counts=counts, protocol=self.protocol | {"only": list(names)})
        return replace(found, grounding=self.grounding and self.grounding.only(names))

    def merge(self, other: "SegmentationReport") -> "SegmentationReport":
        """A new report on the images of both, as if counted at once; for records that were sharded.

        Raises ValueError for an image that is in both, and for reports made in different ways.
        """
        ways = [(r.names, r.protocol, list(r.counts), r.grounding is None) for r in (self, other)]
        if ways[0] != ways[1]:
            raise ValueError(f"got reports of {ways[1]} and {ways[0]}, expected the same classes and protocol")
        if twice := set(self.image_ids) & set(other.image_ids):
            raise ValueError(f"got {len(twice)} images in both reports, such as {min(twice)!r}, expected none")
        counts = {number: np.concatenate([rows, other.counts[number]]) for number, rows in self.counts.items()}
        ids, ignored = self.image_ids + other.image_ids, self.ignored + other.ignored
        grounding = self.grounding and self.grounding.merge(other.grounding)
        return replace(self, image_ids=ids, counts=counts, ignored=ignored, grounding=grounding)

    def _scores(self, background: float | None, absent: str | None = None) -> SegmentationScores:
        if not self.images:
            name = self.protocol.get("vocabulary", "the set")
            raise ValueError(f"got no record of {name}, expected at least one; see what its reader skipped")
        return scores_of_counts(self.counts[background].sum(0, dtype=np.int64), self.ignored, absent or self.absent)
