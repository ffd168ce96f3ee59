"""Segmentation reports from counts, without images."""

import numpy as np

from ovs_lite.evaluation import SegmentationReport


def of_counts(counts, image_ids=None, names=None):
    """A report of (N, 3, C) counts: right, predicted and target pixels."""
    images, _, classes = counts.shape
    names = tuple(names or [f"class {c}" for c in range(classes)])
    return SegmentationReport(names, tuple(image_ids or [f"p{i}" for i in range(images)]), {None: counts}, 0, {})


def fake(seed, count=12, classes=6, quality=0.5):
    """Random counts in which class 5 is nowhere, 4 is only predicted, and 3 is in one image only."""
    rng = np.random.default_rng(seed)
    target = np.random.default_rng(7).integers(0, 90, (count, classes))
    target[:, 4:] = target[1:, 3] = 0
    right = (target * rng.uniform(quality, 1, target.shape)).astype(int)
    predicted = right + rng.integers(0, 9, target.shape)
    predicted[:, 5] = predicted[1:, 3:5] = 0
    return of_counts(np.stack([right, predicted, target], 1).astype(np.int32))
