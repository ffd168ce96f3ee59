"""Pairs made in memory, as open_clip's `--dataset-type synthetic`: how fast training is without disk and decoding."""

import operator
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

SYNTHETIC = "synthetic"
COUNT, SIDE = 100_000, 256  # pairs; pixels
WORDS = ("a", "the", "red", "blue", "old", "small", "cat", "house", "tree", "street", "on", "near")


class SyntheticPairs(Sequence):
    """index -> record {image_id, image ((256, 256, 3) uint8, noise), captions [eight random words], ...}.

    The same index gives the same record. count: how many there are, 1 or more.
    """

    def __init__(self, count: int = COUNT):
        if count < 1:
            raise ValueError(f"got {count} synthetic pairs, expected 1 or more; such as synthetic:1000")
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = operator.index(index)
        if not -self.count <= index < self.count:
            raise IndexError(f"got pair {index}, expected one of {self.count}")
        rng = np.random.default_rng(index % self.count)
        image = np.frombuffer(rng.bytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3)
        record = {"image_id": f"{SYNTHETIC}/{index % self.count:09d}", "segments": None, "segments_info": None}
        return record | {"image": image, "captions": [" ".join(rng.choice(WORDS, 8))]}


def synthetic_pairs(source: str) -> SyntheticPairs | None:
    """The pairs of "synthetic" or "synthetic:1000"; None for any other source. Raises ValueError for another number."""
    name, colon, count = source.partition(":")
    if name != SYNTHETIC or count.startswith(":"):
        return None
    if colon and not re.fullmatch(r"[0-9]+", count):
        raise ValueError(f"got {source!r}, expected synthetic, or synthetic:1000 for so many pairs")
    return SyntheticPairs(int(count) if colon else COUNT)
