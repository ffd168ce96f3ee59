"""Captions that belong to other images, in a known share: the noise of captions made measurable."""

from collections.abc import Sequence

import numpy as np


def mismatched_captions(
    captions: Sequence[Sequence[str]], share: float, seed: int = 0
) -> tuple[list[list[str]], np.ndarray]:
    """The captions of N images, those of round(share N) of them swapped; and which these are, (N,) bool.

    The images are drawn by the seed. Each of them gets all captions of the next of them in an order that is drawn, too,
    the last those of the first: none keeps its own, and nothing is lost. One image alone has nobody to swap with, so a
    count of 1 becomes 2. Raises ValueError for a share outside [0, 1], and for a share of one image.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"got a share of {share}, expected 0..1")
    count = round(share * len(captions))
    count = max(2, count) if count else 0
    if count > len(captions):
        raise ValueError(f"got {len(captions)} image, expected at least 2 to swap captions between")
    chosen = np.random.default_rng(seed).permutation(len(captions))[:count]
    found = [list(some) for some in captions]
    for image, other in zip(chosen, np.roll(chosen, -1), strict=True):
        found[image] = list(captions[other])
    swapped = np.zeros(len(captions), bool)
    swapped[chosen] = True
    return found, swapped
