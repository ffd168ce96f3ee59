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

    def only(self, names: Sequence[str]) -> "SegmentationReport":
        """The report on some of the classes, while all have competed. Raises ValueError for names that are none."""
        if unknown := [name for name in names if name not in self.names] or not names:
            raise ValueError(f"got classes {unknown or names}, expected some of those that were counted")
        chosen = [self.names.index(name) for name in names]
        counts = {number: rows[:, :, chosen] for number, rows in self.counts.items()}
        found = replace(self, names=tuple(names), counts=counts, protocol=self.protocol | {"only": list(names)})
        return replace(found, grounding=self.grounding and self.grounding.only(names))

    def _scores(self, background: float | None, absent: str | None = None) -> SegmentationScores:
        if not self.images:
            name = self.protocol.get("vocabulary", "the set")
            raise ValueError(f"got no record of {name}, expected at least one; see what its reader skipped")
        return scores_of_counts(self.counts[background].sum(0, dtype=np.int64), self.ignored, absent or self.absent)
