"""One confusion matrix over a whole data set, and the mean IoU that the papers print from it. C classes.

Averaging IoU per image or per batch gives another, often lower, number; counting first and dividing once is the only
way to compare with the papers. Counts are exact int64, so matrices of shards or processes add up to the whole.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch

ABSENT_RULES = ("union", "target")
SPARE_ROWS = 256  # counting an ignore_index in a row of its own is cheaper than rewriting the target


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
    like recall. `matrix` is (C, C + 1) int64, row = target, column = prediction; the last column holds predictions
    that are no class (such as -1): they count against the target's class, and in no class's predictions.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255):
        if num_classes < 1:
            raise ValueError(f"got num_classes={num_classes}, expected at least 1")
        if ignore_index is not None and 0 <= ignore_index < num_classes:
            raise ValueError(
                f"got ignore_index={ignore_index}, which is one of the classes 0..{num_classes - 1}; "
                "expected a value outside them (255, or -1 or 65535 where 255 is a class)"
            )
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.matrix = np.zeros((num_classes, num_classes + 1), np.int64)
        self.ignored = 0
        near = ignore_index is not None and num_classes <= ignore_index < num_classes + SPARE_ROWS
        self._rows = (ignore_index if near else num_classes) + 1

    def update(self, pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> "ConfusionMatrix":
        """Count two integer label maps of equal shape, any number of axes. Returns itself.

        Raises ValueError for unequal shapes, for floats, and for a target that is neither a class nor ignore_index;
        then nothing was counted.
        """
        pred, target = _integers(pred, "pred"), _integers(target, "target")
        if pred.shape != target.shape:
            raise ValueError(f"got pred of shape {pred.shape} and target of shape {target.shape}, expected equal ones")
        columns = self.num_classes + 1
        pairs = _at_most(target, self._rows - 1) * columns
        pairs += _at_most(pred, self.num_classes)
        counts = np.bincount(pairs.ravel(), minlength=self._rows * columns).reshape(self._rows, columns)
        ignored = self._check_outside(target, int(counts[self.num_classes :].sum()))
        self.matrix += counts[: self.num_classes]
        self.ignored += ignored
        return self

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add another matrix's counts to this one. Returns itself. ValueError if it counts other classes."""
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise ValueError(f"got a matrix with (num_classes, ignore_index) = {theirs}, expected {mine}")
        self.matrix += other.matrix
        self.ignored += other.ignored
        return self

    def class_pixels(self) -> np.ndarray:
        """(3, C) int64: the pixels of each class that are right, predicted and in the targets."""
        return np.stack([self.matrix.diagonal(), self.matrix[:, :-1].sum(0), self.matrix.sum(1)])

    def compute(self, absent: str = "union") -> SegmentationScores:
        """The scores so far. IoU = intersection / (predicted + target - intersection), per class over all pixels.

        absent "union": a class is left out of the mean only if it occurs neither in the targets nor in the
        predictions; one that is only predicted counts as 0 (mmseg, older detectron2: TCL's and OVSeg's tables).
        absent "target": only classes with target pixels are averaged (newer detectron2: FC-CLIP's and Uni-OVSeg's);
        higher on large vocabularies. Warns and returns NaN when no labelled pixel was counted.
        """
        if absent not in ABSENT_RULES:
            raise ValueError(f"got absent={absent!r}, expected one of {', '.join(ABSENT_RULES)}")
        right, predicted, target = self.class_pixels()
        union = target + predicted - right
        counted = target > 0 if absent == "target" else union > 0
        pixels = int(target.sum())
        if pixels == 0:
            warnings.warn(f"no labelled pixel was counted ({self.ignored} ignored): scores are NaN", stacklevel=2)
        iou = _ratio(right, union, counted)
        return SegmentationScores(
            iou=iou,
            miou=_mean(iou),
            pixel_accuracy=float(right.sum() / pixels) if pixels else float("nan"),
            mean_accuracy=_mean(_ratio(right, target, target > 0)),
            absent=absent,
            classes_counted=int(counted.sum()),
            pixels=pixels,
            ignored=self.ignored,
        )

    def _check_outside(self, target: np.ndarray, outside: int) -> int:
        ignored = 0 if self.ignore_index is None else int(np.count_nonzero(target == self.ignore_index))
        if outside == ignored:
            return ignored
        known = np.append(np.arange(self.num_classes), self.ignore_index if self.ignore_index is not None else [])
        strays = np.setdiff1d(target, known)[:5].tolist()
        raise ValueError(
            f"got target values {strays}, expected 0..{self.num_classes - 1} or ignore_index={self.ignore_index}; "
            "map void pixels to ignore_index first"
        )


def _integers(labels: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise ValueError(f"got {name} of type {array.dtype}, expected an integer label map; take the argmax first")
    return array.astype(np.int64, copy=False)


def _at_most(labels: np.ndarray, limit: int) -> np.ndarray:
    """Labels with every value outside 0..limit replaced by limit. Read as unsigned, a negative number is huge."""
    unsigned = labels.view(np.uint64)
    if unsigned.max(initial=0) <= limit:
        return labels
    return np.minimum(unsigned, np.uint64(limit)).view(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=valid)


def _mean(values: np.ndarray) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else float("nan")
