"""What an evaluation of segmentation counted, per picture, and how sure a difference between two methods is.

N pictures, C classes that are counted, S resamplings.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix, SegmentationScores


@dataclass(frozen=True)
class SegmentationReport:
    """What `evaluate_segmentation` counted. Of several backgrounds, the one with the highest mIoU speaks for all.

    names: C classes. image_ids: N pictures. matrices: {background: confusion matrix}, the only key None without one.
    counts: {background: (N, 3, C) int32}, per picture the pixels of each class that are right, predicted and target;
    ignored pixels are left out, and intersection = right, union = predicted + target - right. protocol: how.
    """

    names: tuple[str, ...]
    image_ids: tuple[str, ...] = field(repr=False)
    matrices: dict[float | None, ConfusionMatrix] = field(repr=False)
    counts: dict[float | None, np.ndarray] = field(repr=False)
    protocol: dict[str, Any]

    @property
    def images(self) -> int:
        """N."""
        return len(self.image_ids)

    @property
    def by_background(self) -> dict[float, SegmentationScores]:
        """Scores for every number that the background's score was set to; empty for a vocabulary without."""
        return {number: matrix.compute() for number, matrix in self.matrices.items() if number is not None}

    @property
    def background(self) -> float | None:
        """The number with the highest mIoU, the first of equals. Looked up in the same pictures, it flatters a bit."""
        if len(self.matrices) == 1:
            return next(iter(self.matrices))
        return max(self.matrices, key=lambda number: np.nan_to_num(self.matrices[number].compute().miou))

    @property
    def scores(self) -> SegmentationScores:
        """Scores over all pictures at `background`, with absent="union"."""
        return self.matrices[self.background].compute()

    @property
    def per_image(self) -> np.ndarray:
        """(N, 3, C) int32: right, predicted and target pixels at `background`."""
        return self.counts[self.background]

    def at(self, background: float) -> "SegmentationReport":
        """The report of one of several backgrounds alone. Raises ValueError for a number that was not measured."""
        if background not in self.matrices:
            raise ValueError(f"got background={background!r}, expected one of {', '.join(map(str, self.matrices))}")
        matrix, counts = self.matrices[background], self.counts[background]
        return replace(self, matrices={background: matrix}, counts={background: counts})

    def merge(self, other: "SegmentationReport") -> "SegmentationReport":
        """A new report on the pictures of both, as if counted at once; for records that were sharded.

        Raises ValueError for a picture that is in both, and for reports made in different ways.
        """
        ways = [(report.names, report.protocol, list(report.matrices)) for report in (self, other)]
        if ways[0] != ways[1]:
            raise ValueError(f"got reports of {ways[1]} and {ways[0]}, expected the same classes and protocol")
        if twice := set(self.image_ids) & set(other.image_ids):
            raise ValueError(f"got {len(twice)} pictures in both reports, such as {min(twice)!r}, expected none")
        matrices = {
            number: ConfusionMatrix(matrix.num_classes, matrix.ignore_index).merge(matrix).merge(other.matrices[number])
            for number, matrix in self.matrices.items()
        }
        counts = {number: np.concatenate([rows, other.counts[number]]) for number, rows in self.counts.items()}
        return replace(self, image_ids=self.image_ids + other.image_ids, matrices=matrices, counts=counts)


def bootstrap_difference(
    first: SegmentationReport, second: SegmentationReport, samples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """mIoU of the first minus mIoU of the second on the same pictures, and its 95 % percentile interval (low, high).

    Pictures are drawn with replacement, the same for both reports; mIoU comes from their summed counts.
    Raises ValueError for reports on other pictures or classes, and where no labelled pixel was counted.
    """
    place = {image_id: row for row, image_id in enumerate(second.image_ids)}
    if first.names != second.names or set(first.image_ids) != set(place) or not place or samples < 1:
        raise ValueError(
            f"got reports on {first.images} and {second.images} pictures, {len(first.names)} and {len(second.names)} "
            f"classes, samples={samples}; expected the same pictures and classes, and at least one of each"
        )
    count = len(place)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    weights = np.concatenate([np.ones((1, count)), drawn])
    order = [place[image_id] for image_id in first.image_ids]
    difference = weighted_miou(first.per_image, weights) - weighted_miou(second.per_image[order], weights)
    if np.isnan(difference[0]):
        raise ValueError(f"got {count} pictures without a labelled pixel, expected some to compare")
    low, high = np.nanpercentile(difference[1:], (2.5, 97.5))
    return float(difference[0]), float(low), float(high)


def weighted_miou(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, 3, C) counts, (S, N) how often each picture is taken -> (S,) mIoU, NaN without a labelled pixel."""
    right, predicted, target = (weights @ counts[:, part].astype(np.float64) for part in range(3))  # each (S, C)
    union = predicted + target - right
    iou = np.divide(right, union, out=np.zeros_like(right), where=union > 0)
    classes = (union > 0).sum(1)
    return np.divide(iou.sum(1), classes, out=np.full(len(iou), np.nan), where=classes > 0)
