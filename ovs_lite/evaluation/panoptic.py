"""Panoptic quality of any predictor on a prepared split, with counts per image for intervals and shards.

Uni-OVSeg (Wang et al., 2024), Table 2: PQ, SQ and RQ by COCO's rules, see `metrics/panoptic.py`. N images, C classes of
the vocabulary, H W pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovs_lite.data.images import read_image
from ovs_lite.data.segments import decode_segments
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.metrics.intervals import MIN_IMAGES, Estimate, compare
from ovs_lite.evaluation.metrics.panoptic import (
    COUNTED,
    GROUPS,
    PanopticQuality,
    PanopticScores,
    Quality,
    class_qualities,
    group_members,
    scores_of_counts,
)
from ovs_lite.inference import panoptic_image
from ovs_lite.methods import Method

# (H, W, 3) uint8 RGB -> (H, W) integer segment ids with 0 = void, and {"id", "category_id"} of each segment
PredictPanoptic = Callable[[np.ndarray], tuple[np.ndarray | torch.Tensor, Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True)
class PanopticReport:
    """What `evaluate_panoptic` counted.

    names, is_thing: C classes. image_ids: N images.
    per_image: (N, 4, C) int64, per image the counts of each class as `PanopticQuality.counts` has them.
    protocol: how it was measured.
    """

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    image_ids: tuple[str, ...] = field(repr=False)
    per_image: np.ndarray = field(repr=False)
    protocol: dict[str, Any]

    @property
    def images(self) -> int:
        """N."""
        return len(self.image_ids)

    @property
    def scores(self) -> PanopticScores:
        """PQ, SQ and RQ over all images. Raises ValueError where there is no image."""
        if not self.images:
            name = self.protocol.get("vocabulary", "the set")
            raise ValueError(f"got no record of {name}, expected at least one; see what its reader skipped")
        return scores_of_counts(self.per_image.sum(0), dict(enumerate(self.is_thing)))

    @property
    def by_name(self) -> dict[str, Quality]:
        """{class name: its Quality}, of the classes of which something was counted."""
        found = zip(self.names, self.scores.per_class.values(), strict=True)
        return {name: quality for name, quality in found if quality.classes}

    def table(self) -> dict[str, dict[str, float]]:
        """{"all" | "things" | "stuff": {"PQ", "SQ", "RQ"}}, fractions, as papers print them; NaN for an empty group."""
        scores = self.scores
        groups = {name: getattr(scores, name) for name in GROUPS}
        return {name: {"PQ": one.pq, "SQ": one.sq, "RQ": one.rq} for name, one in groups.items()}


def predictor(method: Method, vocabulary: Vocabulary, options: Mapping[str, float]) -> PredictPanoptic:
    """What `evaluate_panoptic` asks of a method: image -> its segments of the vocabulary's classes.

    method: one whose masks are of single things. options: as `Method.panoptic` takes them by name, such as
        {"object_threshold": 0.5}; {} for the method's own.
    The classes' names are embedded here, once. What is returned takes an (H, W, 3) uint8 RGB image and gives ids (H, W)
    int64 with 0 = void, and {"id", "category_id", ...} of each segment, where `category_id` is 0..C - 1. It raises what
    `Method.panoptic` does, ValueError for a method without masks of single things among it.
    """
    text = method.clip.text_embeddings(list(vocabulary.names), method.templates)
    return lambda image: panoptic_image(method, Image.fromarray(image), text, vocabulary.is_thing, **options)


def evaluate_panoptic(
    predict: PredictPanoptic,
    records: Iterable[Mapping[str, Any]],
    vocabulary: Vocabulary,
    **protocol: Any,
) -> PanopticReport:
    """Predict segments for every record and count them.

    predict: image -> segment map at the image's size and what its segments are, such as `panoptic_segments` gives.
    records: with segments of the vocabulary's class ids. Crowds and unlabelled segments as `PanopticQuality` has them.
    protocol: facts to keep in the report. Without any record there are no scores. On several processes, or to be
    resumed: `ovs_lite.evaluation.run`. Raises ValueError, naming the record, for one without segments and for what
    `PanopticQuality.update` refuses.
    """
    counter = PanopticCounter(predict, vocabulary, protocol)
    return counter.report(*counter.count(records))


@dataclass(frozen=True)
class PanopticCounter:
    """Counts the segments of images one by one; see `evaluate_panoptic`."""

    predict: PredictPanoptic
    vocabulary: Vocabulary
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def count(self, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], dict[str, np.ndarray]]:
        """Names of N images, and "per_image" as the report has it."""
        image_ids, counts = [], []
        for record in records:
            if record["segments"] is None:
                raise ValueError(f"record {record['image_id']!r} has no segments; PQ needs annotated images")
            ids, infos = self.predict(np.array(read_image(record["image"])))
            one, target = PanopticQuality(self.vocabulary), decode_segments(record["segments"])
            try:
                counts.append(one.update(ids, infos, target, record["segments_info"]).counts)
            except ValueError as error:
                raise ValueError(f"record {record['image_id']!r}: {error}") from None
            image_ids.append(record["image_id"])
        return image_ids, {"per_image": np.array(counts, np.int64).reshape(-1, len(COUNTED), len(self.vocabulary))}

    def report(self, image_ids: Sequence[str], counts: Mapping[str, np.ndarray]) -> PanopticReport:
        """What was counted of N images."""
        names, is_thing = tuple(self.vocabulary.names), tuple(self.vocabulary.is_thing)
        known = {"vocabulary": self.vocabulary.name, **self.protocol}
        return PanopticReport(names, is_thing, tuple(image_ids), counts["per_image"], known)


def pq_interval(report: PanopticReport | Sequence[PanopticReport], group: str = "all") -> Estimate:
    """PQ of one method and its 95 % interval over images; of several reports, one per training seed: of their mean.

    group: "all", "things" or "stuff". How, and when there is none: `metrics/intervals.py`. Draws of 80 and 160 images
    from `icon-voc20` and `icon-context59` (three hundred each, two predictors and their difference): it covers 95 to
    98 %. Raises ValueError as there, and for another group or one without a counted class.
    """
    return compare(report, None, *_of_group(report, group))


def pq_difference(
    first: PanopticReport | Sequence[PanopticReport],
    second: PanopticReport | Sequence[PanopticReport],
    group: str = "all",
) -> Estimate:
    """PQ of the first minus PQ of the second on the same images, and its interval, as `miou_difference`."""
    return compare(first, second, *_of_group(first, group))


def _of_group(report: PanopticReport | Sequence[PanopticReport], group: str) -> tuple[Callable, Callable]:
    """What `compare` needs to know about PQ."""
    if group not in GROUPS:
        raise ValueError(f"got group {group!r}, expected one of {', '.join(GROUPS)}")
    is_thing = (report if isinstance(report, PanopticReport) else report[0]).is_thing
    members = group_members(is_thing)[group]
    return partial(_replicates, members=members, group=group), partial(_too_few_images, members=members)


def _replicates(counts: np.ndarray, members: np.ndarray, group: str) -> tuple[float, np.ndarray]:
    """PQ of all N images, and (N,) without one of them each. A class that is gone then keeps its PQ of all."""
    counts = counts[:, :, members]
    total = counts.sum(0)
    whole, left = class_qualities(total)[0], class_qualities(total - counts)[0]
    kept = ~np.isnan(whole)
    if not kept.any():
        raise ValueError(f"got no segment of {group} in {len(counts)} images, expected at least one")
    return float(whole[kept].mean()), np.where(np.isnan(left), whole, left)[:, kept].mean(1)


def _too_few_images(counts: np.ndarray, members: np.ndarray) -> str:
    """Why (N, 4, C) counts allow no interval; "" where they do."""
    counts = counts[:, :, members]
    shown = ((counts[:, 0] + counts[:, 2]) > 0).sum(0)[counts[:, :3].any((0, 1))]
    if np.median(shown) >= MIN_IMAGES:
        return ""
    return f"no interval: the median of {len(shown)} classes is in {np.median(shown):g} images, {MIN_IMAGES} needed"
