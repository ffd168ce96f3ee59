"""What the explorer's canvas shows, as plain JSON: one label map per method, the best words of each cell.

M methods, K queries of a method, N different names in all, H W pixels, h w cells of a coarse grid.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from ovs_lite.viz.image_files import JPEG_QUALITY
from ovs_lite.viz.overlay import areas, in_words, name_places
from ovs_lite.viz.palette import colours

GRID = 28  # cells along the image's longer side
WORDS = 5  # of a cell
DIGITS = 3  # of a score that is shown
TINY = 1e-12
STEPS = 2**16 - 1  # between the least and the greatest score of all cells
PLACING_SIDE = 160  # names are placed on a map of about this many pixels a side: a new word waits for it


class Result(Protocol):
    """What is shown of a method: `ovs_lite.Segmentation` has it.

    labels: (H, W) integers, index into `queries`, -1 = unlabelled. logits: (K, H, W) scores. queries: K names.
    """

    labels: np.ndarray
    logits: np.ndarray
    queries: list[str]


@dataclass(frozen=True)
class Origin:
    """How the results were made, for lines of Python that repeat them.

    source: the image's file. words: what was asked, synonyms included; None: the results' names. loaders: by method, an
    expression that loads it; a method without one is called models["its name"].
    """

    source: str = "photo.jpg"
    words: str | None = None
    loaders: Mapping[str, str] = field(default_factory=dict)

    def line(self, method: str, result: Result) -> str:
        """The line of Python of one method."""
        loader = self.loaders.get(method, f"models[{method!r}]")
        return f"{loader}.segment({self.source!r}, {result.queries if self.words is None else self.words!r})"


def loader_line(name: str, **options: Any) -> str:
    """`ovs_lite.load(...)` with the options that were given."""
    return f"ovs_lite.load({', '.join([repr(name), *(f'{key}={value!r}' for key, value in options.items())])})"


def content(image: Image.Image, results: Mapping[str, Result], origin: Origin | None = None) -> dict[str, Any]:
    """The results of M methods on an image by name, as JSON for `panel.js`; the image itself comes by `data_url`.

    origin: for the lines of Python that repeat a result.
    The dictionary's keys: size: [H, W]. names: N, in order of appearance; colours: their RGB. methods: a list of
    `name`, `runs` (see `runs`), with labels that index the N names, `scores` (mean winning score of each of the N, null
    where it won nowhere), `places` of names, `cells` (see `cells`), `alt` and `code`. Raises ValueError for no result
    and for a result of another size.
    """
    if not results:
        raise ValueError("got no result, expected at least one method with its segmentation")
    for method, result in results.items():
        if result.labels.shape != (image.height, image.width) or len(result.logits) != len(result.queries):
            given = f"labels {result.labels.shape}, logits {result.logits.shape} and {len(result.queries)} queries"
            size = f"of an image of {image.width} x {image.height} pixels"
            raise ValueError(f"got {given} of {method}, expected (H, W), (K, H, W) and K {size}")
    names = list(dict.fromkeys(name for result in results.values() for name in result.queries))
    return {
        "size": [image.height, image.width],
        "names": names,
        "colours": colours(max(len(names), 1)).tolist(),
        "methods": [_layer(method, result, names, origin or Origin()) for method, result in results.items()],
    }


def _layer(method: str, result: Result, names: list[str], origin: Origin) -> dict[str, Any]:
    """One method's part of `content`."""
    owner = np.array([names.index(query) for query in result.queries] + [-1])  # the last one is also labels' -1
    labels = result.labels if list(result.queries) == names else owner[result.labels]
    rows = areas(labels, names)
    return {
        "name": method,
        "runs": runs(labels),
        "scores": _winning_scores(result, names),
        "places": [[int(value) for value in place] for place in name_places(labels, rows, PLACING_SIDE)],
        "cells": cells(result.logits, owner[:-1]),
        "alt": f"{method}: {in_words(rows)}",
        "code": origin.line(method, result),
    }


def _winning_scores(result: Result, names: list[str]) -> list[float | None]:
    found: list[float | None] = [None] * len(names)
    for index, query in enumerate(result.queries):
        where = result.labels == index
        if where.any():
            found[names.index(query)] = short(result.logits[index][where].mean())
    return found


def runs(labels: np.ndarray) -> list[int]:
    """(H, W) integers -> [value, length, value, length, ...] along the rows, one row after the other."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1))
    lengths = np.diff(starts, append=len(flat))
    return np.stack([flat[starts], lengths], 1).ravel().tolist()


def cells(logits: np.ndarray, owner: np.ndarray) -> dict[str, Any]:
    """(K, H, W) scores -> the best words of each of h x w cells: {"size": [h, w], "each", "words", "scores", "range"}.

    A score is the mean over the cell; `each` words of every cell stand one cell after the other, best first. words and
    scores are 16-bit numbers, little-endian, in base64; a score 0..65535 lies evenly between the two of `range`, the
    least and the greatest finite one, where what is not finite goes, too. owner: (K,), the number of a query's name.
    """
    count, height, width = logits.shape
    scale = GRID / max(height, width, GRID)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    means = adaptive_avg_pool2d(torch.as_tensor(logits), size).flatten(1).numpy()  # (K, h w)
    best = np.argsort(-means, 0, kind="stable")[:WORDS].T  # (h w, each)
    scores = np.take_along_axis(means.T, best, 1).astype(np.float64)
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    known = np.nan_to_num(scores, nan=low, posinf=high, neginf=low)
    steps = (known - low) / max(high - low, TINY) * STEPS
    return {
        "size": size,
        "each": best.shape[1],
        "words": _packed(owner[best]),
        "scores": _packed(steps.round()),
        "range": [low, high],
    }


def _packed(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.astype("<u2").tobytes()).decode()


def data_url(image: Image.Image, smallest: bool = True) -> str:
    """The image inside a URL: as PNG, or as JPEG where that is smaller and `smallest` allows it."""
    found = []
    for kind in ("PNG", "JPEG") if smallest else ("PNG",):
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, kind, quality=JPEG_QUALITY)
        found.append((len(buffer.getvalue()), kind.lower(), buffer.getvalue()))
    _, kind, data = min(found)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def short(value: float) -> float:
    """A score with the digits that are shown."""
    return float(f"{value:.{DIGITS}g}")
