"""Captions as text: made fit to be read, mirrored with their image, some of their words dropped. Knows no grammar."""

import random
import re
from collections.abc import Sequence

import numpy as np

SIDES = {"left": "right", "right": "left"}
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")  # controls, surrogates, byte-order marks


def clean_caption(text: str) -> str:
    """A caption of somebody's file on one line: what cannot be written becomes a space, whitespace is single."""
    return " ".join(UNWRITABLE.sub(" ", text).split())


def swap_sides(caption: str) -> str:
    """The caption of the mirrored image: the whole words "left" and "right" change places and keep their case.

    Also where they mean no side ("has left", "right now"): rare, and no parser is asked.
    """

    def other(found: re.Match) -> str:
        word = found[0]
        side = SIDES[word.lower()]
        return side.upper() if word.isupper() else side.capitalize() if word[0].isupper() else side

    return re.sub(r"\b(?:left|right)\b", other, caption, flags=re.IGNORECASE)


def keep_words(words: Sequence[str], probability: float, rng: random.Random | np.random.Generator) -> list[str]:
    """Each word with a probability kp, as OpenSeg keeps them (section 4.1: 0.5); perhaps none. In order.

    Raises ValueError for a probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"got keep probability {probability}, expected 0..1")
    return [word for word in words if rng.random() < probability]
