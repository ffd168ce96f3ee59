"""mIoU of any method on any set with segments: TCL's protocol in batches, and counts per image for intervals.

TCL, section 4.1 and released code: short side resized, windows averaged, scores enlarged to the ground truth, argmax,
one confusion matrix (see `ovs_lite.inference`); the background class is not asked for, its score is a constant. Other
protocols: `ovs_lite.evaluation.protocols`. Partial classes: TCL, Table 6. Grounding mIoU: OpenSeg, section 4.3.
B images at once, N in all, P phrases that are asked for, C classes that are counted, T thresholds of the background,
R readings (all classes compete, only those of the image), H W pixels of the ground truth, h w of the resized image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch

from ovs_lite.data.images import read_image
from ovs_lite.data.queries import called, parse_queries
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.asked import (
    AUTO,
    asked_phrases,
    background_phrases,
    background_thresholds,
    counted_classes,
)
from ovs_lite.evaluation.labelling import LabelRule, best_by_rule
from ovs_lite.evaluation.protocols import DEFAULT, Protocol, get_protocol
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.inference import Window, normalised, resize_image, scores_within
from ovs_lite.methods import Method

_Prepared = tuple[str, torch.Tensor, np.ndarray]
# Scores held together, B * P * H * W: a CPU is slower beyond its caches, a GPU wants large batches.
SCORES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 28}


def evaluate_segmentation(
    method: Method, records: Iterable[Mapping[str, Any]], vocabulary: Vocabulary, **how: Any
) -> SegmentationReport:
    """Segment every record and count its pixels. Equal to `Segmenter.segment` on each alone.

    records: with segments of the vocabulary's class ids. how: the keywords of `segmentation_counter`, among them
    `protocol`, `background`, `templates`, `window`, `queries`, `grounding`, `batch`, and options of `method.scores`.
    Raises ValueError as that and `SegmentationCounter.count`. Without any record the report's scores are
    an error. On several processes, or to be resumed: `ovs_lite.evaluation.run`.
    """
    counter = segmentation_counter(method, vocabulary, **how)
    return counter.report(*counter.count(records))


def segmentation_counter(
    method: Method,
    vocabulary: Vocabulary,
    *,
    protocol: Protocol | str | None = None,
    templates: str | None = None,
    window: Window | None = None,
    background: float | Sequence[float] | str | None = None,
    classes: Sequence[str] | None = None,
    queries: str | Sequence[str] | None = None,
    present_only: bool = False,
    grounding: bool = False,
    batch: int = 16,
    **options: Any,
) -> "SegmentationCounter":
    """Everything that an evaluation has to know before it sees an image.

    protocol: a name of `protocols.yaml`, or one of your own; what is given next to it goes first. Default: the method's
        own templates and options, `Window.for_clip`, scores as they are.
    templates: prompt set; default the method's own (`method.templates`), which may differ between methods.
    window: default `Window.for_clip`.
    background: threshold for a vocabulary with a background class; a pixel whose best score is lower belongs to it.
        Pass several thresholds to get one result per threshold; "auto": the method's own.
    classes: evaluate only these classes; pixels of other classes are ignored.
    queries: other phrases to ask for, see `ovs_lite.data.queries`: "cat|kitten|pet" belongs to the class that its first
        phrase names, whose score is the maximum of all three; classes without a query are asked for by their names.
    present_only: in each image only the classes of its ground truth compete, its background among them (Grounding
        mIoU).
    grounding: count so as well, from the same scores, into the report's `grounding`.
    batch: at most so many consecutive images of one size go through the method together.
    options: of `method.scores`.
    Raises ValueError for an unknown protocol, for a background that is missing, unasked for or no number, for unknown
    classes and for queries of no class.
    """
    if batch < 1:
        raise ValueError(f"got batch={batch}, expected at least 1")
    way = (get_protocol(protocol or DEFAULT) if not isinstance(protocol, Protocol) else protocol).on(vocabulary.name)
    counted = counted_classes(vocabulary, classes)
    ground = counted.index(vocabulary.background) if vocabulary.background in counted else None
    if protocol is not None:
        method, options = way.refined(method, options)
        background = way.background if background is None and ground is not None else background
        if way.synonyms and queries is None:
            queries = [query for query in vocabulary.queries() if vocabulary.index(called(query)) in counted]
    words, owners = asked_phrases(vocabulary, queries, [index for index in counted if index != vocabulary.background])
    for_ground = [] if ground is None else background_phrases(vocabulary, way.words(vocabulary), words)
    if background == AUTO:
        background = None if ground is None else method.background_below(**options)
    templates = templates or way.templates or getattr(method, "templates", "vild14")
    window = window or way.window_for(method.clip.image_size)
    about = {"method": method.name, "vocabulary": vocabulary.name, "templates": templates, **asdict(window)}
    about |= {"options": options} | ({} if queries is None else {"queries": parse_queries(queries)})
    if protocol is not None:
        about |= {"protocol": way.name, **asdict(way.rule), "background_words": for_ground, "absent": way.absent}
    return SegmentationCounter(
        method, vocabulary, counted, ground,
        thresholds=background_thresholds(background, vocabulary.name, ground is not None, bool(for_ground)),
        owners=np.array([counted.index(owner) for owner in owners] + [ground] * len(for_ground), np.int64),
        phrases=tuple(words + for_ground),
        text=method.clip.text_embeddings(words + for_ground, templates), window=window, rule=way.rule,
        readings=(present_only, True) if grounding else (present_only,), batch=batch, about=about,
    )  # fmt: skip


@dataclass(frozen=True)
class SegmentationCounter:
    """Counts pixels of images under one protocol. Made by `segmentation_counter`.

    counted: ids of the C classes. ground: the position among them that is the background, or None.
    thresholds: T of the background, or (None,).
    phrases, owners, text: the P phrases, which of the C classes each belongs to, their (P, D) embeddings.
    window, rule: how images are resized, and pixels labelled.
    readings: R times whether only the classes of an image's ground truth compete.
    batch: images at once. about: the protocol, as the report has it.
    """

    method: Method
    vocabulary: Vocabulary
    counted: tuple[int, ...]
    ground: int | None
    thresholds: tuple[float | None, ...]
    phrases: tuple[str, ...]
    owners: np.ndarray
    text: torch.Tensor
    window: Window
    rule: LabelRule
    readings: tuple[bool, ...]
    batch: int
    about: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the C classes."""
        return tuple(self.vocabulary.names[index] for index in self.counted)

    @property
    def _most(self) -> int:
        """Scores that are held together."""
        return SCORES_AT_ONCE.get(self.text.device.type, SCORES_AT_ONCE["cuda"])

    @torch.no_grad()
    def count(self, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of N images; (N, R, T, 3, C) int32 right, predicted and target pixels; (N,) int64 ignored pixels.

        Raises ValueError for records without segments or with classes that the vocabulary lacks, and for scores that
        are NaN.
        """
        ids, counts, ignored = [], [], []
        room = self._most // len(self.text)
        prepared = (_prepare(record, self.vocabulary, self.counted, self.window) for record in records)
        with _evaluation_mode(self.method):
            for some, pixels, targets in _batches(prepared, self.batch, room):
                counts.append(self._count_batch(some, pixels, targets))
                ignored += [int((target == len(self.counted)).sum()) for target in targets]
                ids += some
        empty = np.zeros((0, len(self.readings), len(self.thresholds), 3, len(self.counted)), np.int32)
        return ids, np.concatenate([empty, *counts]), np.array(ignored, np.int64)

    def report(self, ids: Sequence[str], counts: np.ndarray, ignored: np.ndarray) -> SegmentationReport:
        """What was counted of N images, by `count`, as a report."""
        reports = [
            SegmentationReport(
                self.names, tuple(ids), {number: counts[:, r, t] for t, number in enumerate(self.thresholds)},
                int(ignored.sum()), self.about | {"present_only": only_present},
            )
            for r, only_present in enumerate(self.readings)
        ]  # fmt: skip
        return replace(reports[0], grounding=reports[1]) if len(reports) > 1 else reports[0]

    def _count_batch(self, ids: list[str], pixels: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        """(B, 3, h, w), (B, H, W) -> (B, R, T, 3, C)."""
        options, readings = self.about["options"], []
        images = normalised(self.method, pixels)
        scores = scores_within(self.method, images, self.text, self.window, self._most, **options)
        for only_present in self.readings:
            present = np.stack([np.isin(self.owners, target) for target in targets]) if only_present else None
            best, labels = best_by_rule(scores, targets.shape[1:], self.rule, self.owners, self.ground, present)
            if best.isnan().any():
                raise ValueError(f"got scores of {self.method.name} that are NaN in {', '.join(ids)}, expected numbers")
            best, labels = best.cpu(), self.owners[labels.cpu().numpy()]
            allowed = (targets == self.ground).any((1, 2), keepdims=True) if only_present else np.True_
            below = [None if number is None else (best < number).numpy() & allowed for number in self.thresholds]
            found = [labels if low is None else np.where(low, self.ground, labels) for low in below]
            readings.append(
                [[_count(f, t, len(self.counted)) for f, t in zip(one, targets, strict=True)] for one in found]
            )
        return np.array(readings, np.int32).transpose(2, 0, 1, 3, 4)


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
