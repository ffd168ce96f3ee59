"""Exercises of notebook 07: absent classes, how many pictures an interval takes, the axes of a confusion matrix.

C classes, H W pixels.
"""

from typing import Any

import numpy as np
import torch

from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    compare,
    exercise,
    number_of,
    numbers,
    pair_of,
    require,
)

SPREAD, GAIN, RESAMPLES, WANTED_WIDTH, MOST_IMAGES = 8.0, 1.5, 2000, 1.0, 5000
LEAST_ACCURACY, MOST_MIOU = 0.9, 0.5


@exercise("07-1", FILL_IN, "mIoU in the conventions of TCL (union) and Uni-OVSeg (target)")
def absent_classes(answer: Any) -> None:
    """answer(both (C,), predicted (C,), shown (C,), absent) -> mean IoU; counts of pixels, absent: union or target."""
    both, predicted, shown = torch.tensor([6, 3, 0]), torch.tensor([8, 4, 2]), torch.tensor([6, 5, 3])
    for absent in ("union", "target"):
        compare(f"three classes are shown, {absent}", answer, _miou, both, predicted, shown, absent)
    ghost = torch.tensor([6, 3, 0]), torch.tensor([8, 4, 2]), torch.tensor([8, 6, 0])
    hint = "union: what is predicted and never shown has an IoU of 0; target: it is left out"
    for absent in ("union", "target"):
        compare(f"class 2 is predicted, never shown, {absent}", answer, _miou, *ghost, absent, hint=hint)
    nobody = torch.tensor([6, 3, 0]), torch.tensor([8, 6, 0]), torch.tensor([8, 6, 0])
    hint = "0 / 0: a class that is neither shown nor predicted is left out of the mean"
    for absent in ("union", "target"):
        compare(f"class 2 is neither shown nor predicted, {absent}", answer, _miou, *nobody, absent, hint=hint)


def _miou(both, predicted, shown, absent) -> float:
    ious = []
    for common, p, t in zip(both.tolist(), predicted.tolist(), shown.tolist(), strict=True):
        if t or (p and absent == "union"):
            ious.append(common / (p + t - common))
    return sum(ious) / len(ious)


@exercise("07-2", TWEAK, "95 % intervals (docs/claims.md; there mostly by the jackknife, for a mean of the same width)")
def how_many_images(answer: Any) -> None:
    """answer: how many pictures make the 95 % interval of a difference no wider than 1 point to each side."""
    images = int(number_of("the number of pictures", answer))
    require("the number of pictures", 2 <= images <= MOST_IMAGES, f"2 to {MOST_IMAGES}", images)
    random = np.random.default_rng(0)
    gains = random.normal(size=images)
    gains = GAIN + SPREAD * (gains - gains.mean()) / gains.std()
    means = [gains[random.integers(0, images, images)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    half, case = (high - low) / 2, f"bootstrap of {images} pictures, {low:+.2f} to {high:+.2f}"
    hint = "half the width is 1.96 x 8 / sqrt(n): four times the pictures for half of it"
    require(case, half <= 1.05 * WANTED_WIDTH, f"half-width {WANTED_WIDTH} or less", f"{half:.2f}", hint)
    require(case, half >= 0.85 * WANTED_WIDTH, "no more pictures than it takes", f"half-width {half:.2f}", hint)


# Wrong on purpose: a bug hunt.
def class_ious(confusion):
    """The IoU of each class, (C,), from counts of pixels (C, C): a row for each true class, a column for each found."""
    both = confusion.diag()
    return both / (confusion.sum(1) + confusion.sum(1) - both)


@exercise("07-3", BUG_HUNT, "IoU = TP / (TP + FP + FN), all papers' tables", bug=class_ious)
def rows_and_columns(answer: Any) -> None:
    """answer(confusion (C, C) float) -> (C,)."""
    greedy = torch.tensor([[9.0, 0.0], [9.0, 1.0]])
    hint = "class 0 has taken nine pixels of class 1: false positives belong into its union"
    compare("everything is called class 0, nearly", answer, _class_ious, greedy, hint=hint)
    compare("the other way round", answer, _class_ious, greedy.flip(0, 1), hint=hint)
    compare("five classes", answer, _class_ious, (10 * numbers(0, 5, 5)).abs().round() + 1)


def _class_ious(confusion) -> torch.Tensor:
    table, size = confusion.tolist(), len(confusion)
    false = [sum(table[t][c] for t in range(size) if t != c) for c in range(size)]
    missed = [sum(table[c][p] for p in range(size) if p != c) for c in range(size)]
    return torch.tensor([table[c][c] / (table[c][c] + false[c] + missed[c]) for c in range(size)])


@exercise("07-4", OWN, "mIoU against pixel accuracy (OpenSeg, section 4.1)")
def accurate_and_bad(answer: Any) -> None:
    """answer: (prediction, target), label maps (H, W), with an accuracy over 0.9 and a mean IoU under 0.5."""
    found, truth = map(np.asarray, pair_of("the answer", answer, "(prediction, target)"))
    same = found.shape == truth.shape and truth.ndim == 2 and truth.size >= 64
    require("the label maps", same, "twice (H, W), 64 pixels or more", f"{found.shape} and {truth.shape}")
    classes = sorted(set(truth.ravel().tolist()))
    require("classes in the target", len(classes) >= 3, "three or more", classes)
    accuracy = float((found == truth).mean())
    require("pixel accuracy", accuracy > LEAST_ACCURACY, f"above {LEAST_ACCURACY}", f"{accuracy:.3f}")
    ious = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in classes]
    hint = "accuracy counts pixels, the mean IoU counts classes: what of a class that is small?"
    require("mean IoU", np.mean(ious) < MOST_MIOU, f"below {MOST_MIOU}", f"{np.mean(ious):.3f}", hint)
