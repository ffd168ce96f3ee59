"""One confusion matrix over a whole data set, and the mean IoU that the papers print from it. C classes.

Averaging IoU per image or per batch gives another, often lower, number; counting first and dividing once is the only
way to compare with the papers. Counts are exact int64, so matrices of shards or processes add up to the whole.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch

ABSENT_RULES = ("union", "target")
SPARE_ROWS = 256  # at most so many rows below the matrix catch an ignored value that is near the classes


@dataclass(frozen=True)
class SegmentationScores:
    """What `ConfusionMatrix.compute` found. Every score is a fraction in [0, 1]; NaN where nothing was counted.

    iou: (C,) float64, NaN for classes left out of the mean. miou: mean of the others. pixel_accuracy: labelled pixels
    that are right. mean_accuracy: mean over classes with target pixels of the share found. absent: the rule used.
    classes_counted: how many classes `miou` averages. pixels: labelled pixels. ignored: pixels left out.
    """

    iou: np.ndarray
    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    absent: str
    classes_counted: int
    pixels: int
    ignored: int


class ConfusionMatrix:
    """Counts pairs of (target class, predicted class) over any number of label maps.

    num_classes: C; class ids are 0..C-1. ignore_index: target value whose pixels are left out altogether, whatever is
    predicted there (None: no such value). It may not be a class: its false positives would vanish and the score read
    like recall. An update costs about what one np.bincount over pairs does: rows of the table below the classes take
    the ignored pixels, and whatever must not occur, so that nothing is sorted out beforehand.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255):
        if num_classes < 1:
            raise ValueError(f"got num_classes={num_classes}, expected at least 1")
        if ignore_index is not None and 0 <= ignore_index < num_classes:
            raise ValueError(
                f"got ignore_index={ignore_index}, which is one of the classes 0..{num_classes - 1}; "
                "expected a value outside them (255, or -1 or 65535 where 255 is a class)"
            )
        self.num_classes, self.ignore_index, self.ignored = num_classes, ignore_index, 0
        self._near = ignore_index is not None and num_classes <= ignore_index < num_classes + SPARE_ROWS
        rows = ignore_index + 1 if self._near else num_classes + (ignore_index is not None)
        self._table = np.zeros((rows, num_classes + 1), np.int64)

    @property
    def matrix(self) -> np.ndarray:
        """(C, C + 1) int64, row = target, column = prediction.

        The last column holds predictions that are no class (such as -1): they count against the target's class, and in
        no class's predictions.
        """
        return self._table[: self.num_classes]

    def update(self, pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> "ConfusionMatrix":
        """Count two integer label maps of equal shape, any number of axes. Returns itself.

        Raises ValueError for unequal shapes, for floats, and for a target that is neither a class nor ignore_index;
        then nothing was counted.
        """
        pred, target = _integers(pred, "pred"), _integers(target, "target")
        if pred.shape != target.shape:
            raise ValueError(f"got pred of shape {pred.shape} and target of shape {target.shape}, expected equal ones")
        rows, columns, ignored = target, pred, None
        if self.ignore_index is not None and not self._near:
            mask = target == self.ignore_index
            rows, ignored = np.where(mask, self.num_classes, target), np.count_nonzero(mask)
        if not _all_below(rows, len(self._table)):
            raise self._strays(target)
        if not _all_below(pred, self.num_classes):
            columns = np.where((pred >= 0) & (pred < self.num_classes), pred, self.num_classes)
        pairs = rows * self._table.shape[1]
        pairs += columns
        if not self._count(pairs.ravel(), ignored):
            raise self._strays(target)
        return self

    def _count(self, pairs: np.ndarray, ignored: int | None) -> bool:
        """Add to the table; or leave it as it was and return False, where pixels are neither labelled nor ignored.

        ignored: how many are, where that is known; else those of the last row.
        """
        np.add.at(self._table.reshape(-1), pairs, 1)
        outside = self._table[self.num_classes :].sum(1)
        ignored = int(outside[-1:].sum()) if ignored is None else ignored
        if good := int(outside.sum()) == ignored:
            self.ignored += ignored
            self._table[self.num_classes :] = 0
        else:
            np.subtract.at(self._table.reshape(-1), pairs, 1)
        return good

    def _strays(self, target: np.ndarray) -> ValueError:
        """An error that tells what is neither a class nor ignored."""
        values = np.unique(target)
        wrong = values[((values < 0) | (values >= self.num_classes)) & (values != self.ignore_index)][:5].tolist()
        return ValueError(
            f"got target values {wrong}, expected 0..{self.num_classes - 1} or ignore_index={self.ignore_index}; "
            "map void pixels to ignore_index first"
        )

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add another matrix's counts to this one. Returns itself. ValueError if it counts other classes."""
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise ValueError(f"got a matrix with (num_classes, ignore_index) = {theirs}, expected {mine}")
        self._table += other._table
        self.ignored += other.ignored
        return self

    def class_pixels(self) -> np.ndarray:
        """(3, C) int64: the pixels of each class that are right, predicted and in the targets."""
        return np.stack([self.matrix.diagonal(), self.matrix[:, :-1].sum(0), self.matrix.sum(1)])

    def compute(self, absent: str = "union") -> SegmentationScores:
        """The scores so far, see `scores_of_counts`."""
        return scores_of_counts(self.class_pixels(), self.ignored, absent)


def scores_of_counts(counts: np.ndarray, ignored: int = 0, absent: str = "union") -> SegmentationScores:
    """Scores from (3, C) right, predicted and target pixels of each class. IoU = right / (predicted + target - right).

    absent "union": a class is left out of the mean only if it occurs neither in the targets nor in the predictions; one
    that is only predicted counts as 0 (mmseg, older detectron2: TCL's and OVSeg's tables). absent "target": only
    classes with target pixels are averaged (newer detectron2: FC-CLIP's and Uni-OVSeg's); higher on large vocabularies.
    Warns and returns NaN when no labelled pixel was counted.
    """
    if absent not in ABSENT_RULES:
        raise ValueError(f"got absent={absent!r}, expected one of {', '.join(ABSENT_RULES)}")
    right, _, target = counts
    iou, pixels = class_ious(counts), int(target.sum())
    if absent == "target":
        iou = np.where(target > 0, iou, np.nan)
    if pixels == 0:
        warnings.warn(f"no labelled pixel was counted ({ignored} ignored): scores are NaN", stacklevel=3)
    return SegmentationScores(
        iou=iou,
        miou=_mean(iou),
        pixel_accuracy=float(right.sum() / pixels) if pixels else float("nan"),
        mean_accuracy=_mean(_ratio(right, target)),
        absent=absent,
        classes_counted=int(np.isfinite(iou).sum()),
        pixels=pixels,
        ignored=ignored,
    )


def class_ious(counts: np.ndarray) -> np.ndarray:
    """(..., 3, C) summed counts -> (..., C) IoU, NaN for a class that is neither predicted nor in the targets."""
    right, predicted, target = np.moveaxis(np.asarray(counts), -2, 0)
    return _ratio(right, predicted + target - right)


def _integers(labels: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise ValueError(f"got {name} of type {array.dtype}, expected an integer label map; take the argmax first")
    return array.astype(np.int64, copy=False)


def _all_below(labels: np.ndarray, limit: int) -> bool:
    """Are all of 0..limit - 1? Of int64; read as unsigned, negative ones are huge, so one maximum tells."""
    return labels.size == 0 or int(labels.view(np.uint64).max()) < limit


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else float("nan")
