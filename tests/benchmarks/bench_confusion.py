"""Time of one 512 x 512 label map in the confusion matrix, against other ways of counting it. Run it by hand:

python -m tests.benchmarks.bench_confusion

Baselines, all in this run and on the same maps: `pairs`, one np.bincount over pairs with the ignored pixels mapped to a
row of their own (detectron2's way); `bare`, the same where that was done beforehand for nothing and nothing is checked;
`histograms`, three np.bincount of intersection, prediction and target (mmsegmentation's way), which know no confusions;
`torchmetrics`, its multiclass_confusion_matrix, if installed. All that count a matrix must count the same one.
"""

import numpy as np
import torch
from timing import best_of

from ovs_lite.evaluation import ConfusionMatrix

REPEATS = 30
SIZES = ((150, 255), (847, -1), (847, 65535))  # classes, ignored number


def example(num_classes: int, ignore: int, side: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """A blocky map, 30 % wrong, with ignored rows."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, num_classes, (side // 32, side // 32)).repeat(32, 0).repeat(32, 1)
    pred = np.where(rng.random(target.shape) < 0.3, rng.integers(0, num_classes, target.shape), target)
    target[:16] = ignore
    return pred, target


def pairs(matrix: np.ndarray, pred: np.ndarray, target: np.ndarray, ignore: int | None = None) -> None:
    """One np.bincount over pairs. ignore: None where the target's is num_classes already."""
    side = len(matrix)
    if ignore is not None:
        target = np.where(target == ignore, side - 1, target)
    matrix += np.bincount(side * target.ravel() + pred.ravel(), minlength=side * side).reshape(side, side)


def histograms(matrix: np.ndarray, pred: np.ndarray, target: np.ndarray) -> None:
    """Three np.bincount histograms: intersection, prediction, target."""
    classes = len(matrix) - 1
    labelled = target != classes
    pred, target = pred[labelled], target[labelled]
    for row, labels in enumerate((pred[pred == target], pred, target)):
        matrix[row, :classes] += np.bincount(labels, minlength=classes)


def torchmetrics_count(pred: np.ndarray, target: np.ndarray, classes: int, ignore: int) -> np.ndarray | None:
    """Its (C, C) matrix of one map; None where it is not installed."""
    try:
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    except ImportError:
        return None
    tensors = torch.from_numpy(pred), torch.from_numpy(target)
    return multiclass_confusion_matrix(*tensors, classes, ignore_index=ignore, validate_args=False).numpy()


def check(classes: int, ignore: int, pred: np.ndarray, target: np.ndarray) -> None:
    """Raise AssertionError where two ways count differently."""
    ours, plain = ConfusionMatrix(classes, ignore).update(pred, target).matrix, np.zeros((classes + 1,) * 2, np.int64)
    pairs(plain, pred, target, ignore)
    theirs = torchmetrics_count(pred, target, classes, ignore)
    assert (ours == plain[:classes]).all() and (theirs is None or (ours[:, :classes] == theirs).all())


def main() -> None:
    """Print one row per vocabulary."""
    print("classes  ignored  ours ms  ours / pairs  / bare  / histograms  / torchmetrics")
    for classes, ignore in SIZES:
        pred, target = example(classes, ignore)
        check(classes, ignore, pred, target)
        ours, plain = ConfusionMatrix(classes, ignore), np.zeros((classes + 1, classes + 1), np.int64)
        mapped = np.where(target == ignore, classes, target)  # bare and histograms get this for nothing
        ways = {
            "ours": lambda c=ours, p=pred, t=target: c.update(p, t),
            "pairs": lambda m=plain, p=pred, t=target, i=ignore: pairs(m, p, t, i),
            "bare": lambda m=plain, p=pred, t=mapped: pairs(m, p, t),
            "histograms": lambda m=plain, p=pred, t=mapped: histograms(m, p, t),
            "torchmetrics": lambda c=classes, p=pred, t=target, i=ignore: torchmetrics_count(p, t, c, i),
        }
        if torchmetrics_count(pred, target, classes, ignore) is None:
            del ways["torchmetrics"]
        times = {name: best_of(way, REPEATS) for name, way in ways.items()}
        ratios = [f"{times['ours'] / times[name]:.2f}" for name in list(ways)[1:]]
        last = [] if "torchmetrics" in ways else ["not installed"]
        print(f"{classes:7d}  {ignore:7d}  {1000 * times['ours']:7.2f}  " + "  ".join(ratios + last))


if __name__ == "__main__":
    main()
