"""mIoU of any method on any set with segments: TCL's protocol in batches, and counts per image for intervals.

TCL, section 4.1 and released code: short side resized, windows averaged, scores enlarged to the ground truth, argmax,
one confusion matrix (see `ovs_lite.inference`); the background class is not asked for, its score is a constant. Partial
classes: TCL, Table 6. Grounding mIoU: OpenSeg, section 4.3.
B images at once, N in all, K classes that are asked for, C that are counted (K, and the background where there is
one), H W pixels of the ground truth, h w of the resized image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import groupby, islice
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch

from ovs_lite.data.images import read_image
from ovs_lite.data.queries import called, parse_queries, phrases
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.inference import Window, best_classes, normalised, resize_image, sliding_scores
from ovs_lite.methods import Method

_Prepared = tuple[str, torch.Tensor, np.ndarray]
AUTO = "auto"  # the method's own background threshold
# Scores held together, B * K * H * W: a CPU is slower beyond its caches, a GPU wants large batches.
SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 28}


@torch.no_grad()
def evaluate_segmentation(
    method: Method,
    records: Iterable[Mapping[str, Any]],
    vocabulary: Vocabulary,
    *,
    templates: str | None = None,
    window: Window | None = None,
    background: float | Sequence[float] | str | None = None,
    classes: Sequence[str] | None = None,
    queries: str | Sequence[str] | None = None,
    present_only: bool = False,
    grounding: bool = False,
    batch: int = 16,
    **options: Any,
) -> SegmentationReport:
    """Segment every record and count its pixels. Equal to `Segmenter.segment` on each alone.

    records: with segments of the vocabulary's class ids.
    templates: prompt set; default the method's own (`method.templates`), which may differ between methods.
    window: default `Window.for_clip`.
    background: threshold for a vocabulary with a background class; a pixel whose best score is lower belongs to it.
        Pass several thresholds to get one result per threshold; "auto": the method's own.
    classes: evaluate only these classes; pixels of other classes are ignored.
    queries: other phrases to ask for, see `ovs_lite.data.queries`: "cat|kitten|pet" belongs to the class that its first
        phrase names, whose score is the maximum of all three; classes without a query are asked for by their names.
    present_only: in each image only the classes of its ground truth compete (Grounding mIoU).
    grounding: count so as well, from the same scores, into the report's `grounding`.
    batch: at most so many consecutive images of one size go through the method together.
    options: of `method.scores`.
    Raises ValueError for a background that is missing, unasked for or no number, for unknown classes, for queries of no
    class, for records without segments or with classes that the vocabulary lacks, and for scores that are NaN. Without
    any record the report is that of an empty shard: it can be merged, and its scores are an error.
    """
    if batch < 1:
        raise ValueError(f"got batch={batch}, expected at least 1")
    counted = _counted(vocabulary, classes)
    ground = counted.index(vocabulary.background) if vocabulary.background in counted else None
    if background == AUTO:
        background = None if ground is None else method.background
    thresholds = _thresholds(background, vocabulary.name, ground is not None)
    competing = [index for index in counted if index != vocabulary.background]
    words, owners = asked_phrases(vocabulary, queries, competing)
    asked = np.array([counted.index(owner) for owner in owners])  # (P,) of the C classes
    names = tuple(vocabulary.names[index] for index in counted)
    templates = templates or getattr(method, "templates", "vild14")
    window = window or Window.for_clip(method.clip.image_size)
    text = method.clip.text_embeddings(words, templates)
    room = SCORES_AT_ONCE.get(text.device.type, SCORES_AT_ONCE["cuda"]) // len(text)
    readings = [present_only, True] if grounding else [present_only]
    counts: list[dict[float | None, list[np.ndarray]]] = [{number: [] for number in thresholds} for _ in readings]
    image_ids: list[str] = []
    ignored = 0
    prepared = (_prepare(record, vocabulary, counted, window) for record in records)
    with _evaluation_mode(method):
        for ids, pixels, targets in _batches(prepared, batch, room):
            scores = sliding_scores(method, normalised(method, pixels), text, window, **options)
            for only_present, counted_so in zip(readings, counts, strict=True):
                present = np.stack([np.isin(asked, target) for target in targets]) if only_present else None
                best, labels = best_classes(scores, targets.shape[1:], present)
                if best.isnan().any():
                    raise ValueError(f"got scores of {method.name} that are NaN in {', '.join(ids)}, expected numbers")
                best, labels = best.cpu(), asked[labels.cpu().numpy()]
                for number in thresholds:
                    found = labels if number is None else np.where((best < number).numpy(), ground, labels)
                    counted_so[number] += [_count(*pair, len(names)) for pair in zip(found, targets, strict=True)]
            image_ids += ids
            ignored += int((targets == len(names)).sum())
    protocol = {"method": method.name, "vocabulary": vocabulary.name, "templates": templates, **asdict(window)}
    protocol |= {"options": options} | ({} if queries is None else {"queries": parse_queries(queries)})
    reports = [
        SegmentationReport(
            names, tuple(image_ids), _stacked(rows, len(names)), ignored, protocol | {"present_only": only}
        )
        for only, rows in zip(readings, counts, strict=True)
    ]
    return replace(reports[0], grounding=reports[1]) if grounding else reports[0]


def _stacked(counts: Mapping[float | None, list[np.ndarray]], classes: int) -> dict[float | None, np.ndarray]:
    """Lists of N (3, C) -> (N, 3, C) int32, also of none."""
    return {number: np.array(rows, np.int32).reshape(-1, 3, classes) for number, rows in counts.items()}


def _counted(vocabulary: Vocabulary, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Ids of the C classes, in the order given."""
    counted = tuple(range(len(vocabulary)) if classes is None else map(vocabulary.index, classes))
    if len(set(counted)) < len(counted) or not set(counted) - {vocabulary.background}:
        raise ValueError(f"got classes {classes!r}, expected each once, and at least one that is not the background")
    return counted


def asked_phrases(
    vocabulary: Vocabulary, queries: str | Sequence[str] | None = None, competing: Sequence[int] | None = None
) -> tuple[list[str], list[int]]:
    """P phrases, and the class id of each: what the queries say of a class, else its name.

    competing: class ids, default all but the background. Raises ValueError as `evaluate_segmentation`.
    """
    if competing is None:
        competing = [index for index in range(len(vocabulary)) if index != vocabulary.background]
    given: dict[int, list[str]] = {}
    for query in () if queries is None else parse_queries(queries):
        index = vocabulary.index(called(query))
        if index not in competing or index in given:
            name = vocabulary.names[index]
            raise ValueError(f"got the query {query!r}, expected at most one of each class that competes; see {name!r}")
        given[index] = phrases([query])[0]
    rows = [(word, index) for index in competing for word in given.get(index, [vocabulary.names[index]])]
    words = [word for word, _ in rows]
    if queries is not None:
        parse_queries(words)  # a phrase of two classes
    return words, [index for _, index in rows]


def _thresholds(background: Any, name: str, needed: bool) -> tuple[float | None, ...]:
    """What the background's score is set to, one after the other; (None,) where no background is counted."""
    if not needed and background is None:
        return (None,)
    if not needed:
        raise ValueError(f"got background={background!r}, but no class of {name!r} that is counted is a background")
    numbers = list(background) if isinstance(background, Iterable) else [background]
    if not numbers or not all(isinstance(n, Real) and not isinstance(n, bool) and isfinite(n) for n in numbers):
        raise ValueError(
            f"got background={background!r}, but {name!r} has a background class; expected the score below which a "
            "pixel belongs to it (or several, to compare), such as 0.4 for TCL's refined masks"
        )
    return tuple(dict.fromkeys(map(float, numbers)))


def _prepare(record: Mapping[str, Any], vocabulary: Vocabulary, counted: tuple[int, ...], window: Window) -> _Prepared:
    """(image_id, resized RGB (3, h, w) uint8, target (H, W) in 0..C); C stands for ignored pixels."""
    if record["segments"] is None:
        raise ValueError(f"record {record['image_id']!r} has no segments; mIoU needs annotated images")
    strays = {info["category_id"] for info in record["segments_info"]} - set(range(-1, len(vocabulary)))
    if strays:
        known = f"-1..{len(vocabulary) - 1} of {vocabulary.name!r}, the vocabulary that the set was made with"
        raise ValueError(f"record {record['image_id']!r} has categories {sorted(strays)}, expected {known}")
    places = np.full(len(vocabulary) + 1, len(counted), np.int64)  # the last one is for -1
    places[list(counted)] = np.arange(len(counted))
    target = places[semantic_map(record["segments"], record["segments_info"], ignore=-1)]
    return record["image_id"], resize_image(read_image(record["image"]), window), target


def _batches(
    prepared: Iterable[_Prepared], batch: int, room: int
) -> Iterator[tuple[list[str], torch.Tensor, np.ndarray]]:
    """Neighbours of equal sizes together: ids, (B, 3, h, w), (B, H, W); B * max(h * w, H * W) <= room, unless B = 1."""
    for ((_, h, w), (height, width)), alike in groupby(prepared, lambda one: (one[1].shape, one[2].shape)):
        most = max(1, min(batch, room // max(h * w, height * width)))
        while held := list(islice(alike, most)):
            ids, pixels, targets = zip(*held, strict=True)
            yield list(ids), torch.stack(pixels), np.stack(targets)


def _count(found: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """(3, C) int32: right, predicted and target pixels of each class in one image."""
    labelled = target < classes
    parts = (target[found == target], found[labelled], target[labelled])
    return np.array([np.bincount(part, minlength=classes) for part in parts], np.int32)


@contextmanager
def _evaluation_mode(method: Method) -> Iterator[None]:
    """Dropout and batch statistics stand still; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
