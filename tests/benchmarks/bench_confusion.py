"""Time of one 512 x 512 label map in the confusion matrix, against two plain baselines. Run it by hand:

python -m tests.benchmarks.bench_confusion
"""

import time

import numpy as np

from ovs_lite.evaluation import ConfusionMatrix


def example(num_classes: int, ignore: int, side: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """A blocky map, 30 % wrong, with ignored rows."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, num_classes, (side // 32, side // 32)).repeat(32, 0).repeat(32, 1)
    pred = np.where(rng.random(target.shape) < 0.3, rng.integers(0, num_classes, target.shape), target)
    target[:16] = ignore
    return pred, target


def pairs(matrix: np.ndarray, pred: np.ndarray, target: np.ndarray, ignore: int | None = None) -> None:
    """One np.bincount over pairs, as detectron2 counts. ignore: None where the target's is num_classes already."""
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


def milliseconds(call, repeats: int = 30) -> float:
    """Best of `repeats` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Print one row per vocabulary size."""
    print("classes  ours ms  / pairs  / bare pairs  / three histograms")
    for classes, ignore in ((150, 255), (847, -1)):
        pred, target = example(classes, ignore)
        ours = ConfusionMatrix(classes, ignore)
        plain = np.zeros((classes + 1, classes + 1), np.int64)
        time_ours = milliseconds(lambda ours=ours, p=pred, t=target: ours.update(p, t))
        time_pairs = milliseconds(lambda m=plain, p=pred, t=target, i=ignore: pairs(m, p, t, i))
        target = np.where(target == ignore, classes, target)  # the other two get this for nothing
        time_bare = milliseconds(lambda m=plain, p=pred, t=target: pairs(m, p, t))
        time_three = milliseconds(lambda m=plain, p=pred, t=target: histograms(m, p, t))
        ratios = "  ".join(f"{time_ours / other:9.2f}" for other in (time_pairs, time_bare, time_three))
        print(f"{classes:7d}  {time_ours:7.2f}  {ratios}")


if __name__ == "__main__":
    main()
