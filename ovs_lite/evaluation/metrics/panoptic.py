"""Panoptic quality: how many segments are found, and how well (Kirillov et al., CVPR 2019, section 4; COCO's rules).

PQ = sum of IoU over true positives / (TP + FP / 2 + FN / 2) = SQ * RQ within a class; over classes each is averaged by
itself. Counts are exact integers, an IoU in steps of 2^-40, so shards and processes add up to the same bits in any
order. C classes, H W pixels, T target and P predicted segments of one image; id 0 = void, nobody's pixel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ovs_lite.data.vocabulary import Vocabulary

UNIT = 1 << 40  # an IoU of 1
COUNTED = ("true positives", "false positives", "false negatives", "IoU of true positives, in units of 2^-40")
GROUPS = ("all", "things", "stuff")
TABLE = 256  # a table may be so many times longer than what is looked up: COCO's ids are RGB colours, up to 2^24
Categories = Vocabulary | Sequence[bool] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Quality:
    """Panoptic, segmentation and recognition quality, fractions in [0, 1]; NaN where nothing was counted.

    classes: how many they average: those with a true or false positive or a false negative.
    """

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticScores:
    """What `PanopticQuality.compute` found. Over classes SQ and RQ are means too, so PQ is not their product there.

    per_class: {category id: its Quality}, of all categories.
    """

    all: Quality
    things: Quality
    stuff: Quality
    per_class: dict[int, Quality]


class PanopticQuality:
    """Counts matched segments over any number of images, as COCO's panopticapi does.

    categories: a `Vocabulary`; a flag per class, whether it is of things, ids being 0..C-1; or COCO's list of {"id",
        "isthing"}. `counts` is (4, C) int64, rows as in COUNTED, columns in the order of `categories`.

    A prediction is matched to a target of its class where their IoU exceeds 0.5, pixels of the prediction on void left
    out of the union. Target crowds are matched by nothing and missed by nobody. A prediction without a match is false,
    unless more than half of it lies on void and on the crowd of its class: the last one that target_info lists, if
    there are several. Target segments of category -1 (unlabelled) are void. Areas are the maps' own.
    """

    def __init__(self, categories: Categories):
        self.is_thing = _things(categories)
        self.counts = np.zeros((len(COUNTED), len(self.is_thing)), np.int64)
        self._rows = {category: row for row, category in enumerate(self.is_thing)}

    def update(
        self,
        pred_ids: np.ndarray | torch.Tensor,
        pred_info: Sequence[Mapping[str, Any]],
        target_ids: np.ndarray | torch.Tensor,
        target_info: Sequence[Mapping[str, Any]],
    ) -> "PanopticQuality":
        """Count one image. Returns itself.

        pred_ids, target_ids: (H, W) integer segment ids, 0 = void.
        pred_info, target_info: what each segment is, {"id", "category_id"} and for targets "is_crowd" (or COCO's
            "iscrowd"); more keys are ignored, as in a record's `segments_info`.
        Raises ValueError for maps that are no integers or of unequal shape, for ids without info, infos without pixels,
        duplicate ids and unknown categories; then nothing was counted.
        """
        pred, target = _id_map(pred_ids, "pred_ids"), _id_map(target_ids, "target_ids")
        if pred.shape != target.shape:
            raise ValueError(f"got pred_ids of {pred.shape} and target_ids of {target.shape}, expected equal shapes")
        numbers, classes, _ = self._segments(pred_info, "pred_info")
        target_numbers, target_classes, crowd = self._segments(target_info, "target_info")
        overlap = _overlaps(pred, numbers, target, target_numbers)
        self.counts += _image_counts(overlap, classes, target_classes, crowd, len(self.is_thing))
        return self

    def merge(self, other: "PanopticQuality") -> "PanopticQuality":
        """Add another one's counts to this one. Returns itself. ValueError if it counts other categories."""
        if list(self.is_thing.items()) != list(other.is_thing.items()):
            given = f"{len(other.is_thing)} categories, {sum(other.is_thing.values())} of things"
            raise ValueError(f"got counts of {given}, expected the same {len(self.is_thing)} as here, in their order")
        self.counts += other.counts
        return self

    def compute(self) -> PanopticScores:
        """The scores so far."""
        return scores_of_counts(self.counts, self.is_thing)

    def _segments(self, infos: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(S,) ids, rows of their classes (-1: unlabelled) and whether they are crowds, in the order given."""
        known = self._rows if name == "pred_info" else {-1: -1, **self._rows}
        numbers = [int(info["id"]) for info in infos]
        categories = [int(info["category_id"]) for info in infos]
        if strays := sorted(set(categories) - set(known)):
            raise ValueError(f"got {name} with categories {strays[:5]}, expected those of the {len(self._rows)} known")
        if len(set(numbers)) < len(numbers) or min(numbers, default=1) < 1:
            raise ValueError(f"got {name} with ids {numbers[:20]}, expected different ones above 0")
        crowd = [bool(info.get("is_crowd", info.get("iscrowd", False))) for info in infos]
        return np.array(numbers, np.int64), np.array([known[c] for c in categories], np.int64), np.array(crowd, bool)


def scores_of_counts(counts: np.ndarray, is_thing: Mapping[int, bool]) -> PanopticScores:
    """Scores from (4, C) counts. is_thing: {category id: whether it is of things}, in the order of the columns."""
    qualities = class_qualities(counts)
    groups = [_mean_quality(qualities[:, members]) for members in group_members(list(is_thing.values())).values()]
    per_class = {category: _mean_quality(qualities[:, [row]]) for row, category in enumerate(is_thing)}
    return PanopticScores(*groups, per_class)


def class_qualities(counts: np.ndarray) -> np.ndarray:
    """(..., 4, C) summed counts -> (3, ..., C) PQ, SQ, RQ; NaN for a class of which nothing was counted, SQ = 0 where
    only its true positives are missing."""
    true, false, missed, overlap = np.moveaxis(np.asarray(counts), -2, 0)
    weight = true + (false + missed) / 2
    counted, overlap = weight > 0, overlap / UNIT
    pq, rq = (np.divide(part, weight, out=np.full(weight.shape, np.nan), where=counted) for part in (overlap, true))
    sq = np.where(counted, overlap / np.maximum(true, 1), np.nan)
    return np.stack([pq, sq, rq])


def group_members(is_thing: Sequence[bool]) -> dict[str, np.ndarray]:
    """{"all" | "things" | "stuff": (C,) bool}."""
    things = np.asarray(is_thing, bool)
    return dict(zip(GROUPS, (things | True, things, ~things), strict=True))


def _mean_quality(qualities: np.ndarray) -> Quality:
    counted = qualities[:, ~np.isnan(qualities[0])]
    classes = counted.shape[1]
    return Quality(*(counted.mean(1).tolist() if classes else [float("nan")] * 3), classes)


def _things(categories: Categories) -> dict[int, bool]:
    """{category id: whether it is of things}, in the order given."""
    rows = categories.is_thing if isinstance(categories, Vocabulary) else list(categories)
    if rows and all(isinstance(row, Mapping) for row in rows):
        pairs = [(int(row["id"]), bool(row["isthing"])) for row in rows]
    elif all(isinstance(row, bool | np.bool_) for row in rows):
        pairs = list(enumerate(map(bool, rows)))
    else:
        given = f"got categories such as {rows[:2]}"
        raise ValueError(f"{given}, expected a vocabulary, flags, or a list of {{'id', 'isthing'}}")
    if not pairs or len(dict(pairs)) < len(pairs):
        raise ValueError(f"got {len(pairs)} categories, expected at least one, and different ids")
    return dict(pairs)


def _id_map(ids: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    array = ids.detach().cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ValueError(f"got {name} {array.shape} of {array.dtype}, expected (H, W) integer segment ids")
    if array.min() < 0:
        raise ValueError(f"got {name} with {array.min()}, expected 0 for void and positive ids")
    return array


def _overlaps(pred: np.ndarray, pred_numbers: np.ndarray, target: np.ndarray, target_numbers: np.ndarray) -> np.ndarray:
    """(1 + T, 1 + P) int64: pixels of each pair of segments, in the order of the numbers after void.

    Counted by runs of neighbours with the same pair: looking up every pixel's id costs more than finding the runs.
    """
    pred, target = pred.ravel(), target.ravel()
    starts = np.append(0, np.flatnonzero((pred[1:] != pred[:-1]) | (target[1:] != target[:-1])) + 1)
    width, height = len(pred_numbers) + 2, len(target_numbers) + 2  # place 0: an id that no info has, 1: void
    places = width * _places(target[starts], target_numbers) + _places(pred[starts], pred_numbers)
    pixels = np.bincount(places, np.diff(starts, append=pred.size), height * width)  # integers, exact in float64
    pairs = pixels.astype(np.int64).reshape(height, width)
    for ids, numbers, sizes, name in (
        (pred, pred_numbers, pairs.sum(0), "pred"),
        (target, target_numbers, pairs.sum(1), "target"),
    ):
        if sizes[0]:
            unknown = np.setdiff1d(ids, np.append(numbers, 0))[:5].tolist()
            raise ValueError(f"got ids {unknown} in {name}_ids, expected only 0 and those of {name}_info")
        if (empty := numbers[sizes[2:] == 0]).size:
            raise ValueError(f"got {name}_info of ids {empty[:5].tolist()}, expected only those that {name}_ids holds")
    return pairs[1:, 1:]


def _places(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Where each id stands among (unknown, void, *numbers): by a table of all ids, if that is not much too long."""
    keys = np.append(0, numbers)
    longest = max(int(keys.max()), int(ids.max())) + 1
    if longest <= TABLE * len(ids):
        table = np.zeros(longest, np.min_scalar_type(len(keys)))  # small values: fewer pages are touched
        table[keys] = np.arange(1, len(keys) + 1)
        return table.take(ids).astype(np.int64)
    order = np.argsort(keys)
    found = np.minimum(np.searchsorted(keys, ids, sorter=order), len(keys) - 1)
    return np.where(keys[order[found]] == ids, order[found] + 1, 0)


def _image_counts(
    overlap: np.ndarray, classes: np.ndarray, target_classes: np.ndarray, crowd: np.ndarray, num_classes: int
) -> np.ndarray:
    """(4, C) int64 of one image, from the (1 + T, 1 + P) pixels of every pair and each segment's class."""
    inside, labelled = overlap[1:, 1:], target_classes >= 0
    area, target_area = overlap.sum(0)[1:], overlap.sum(1)[1:]
    void = overlap[0, 1:] + inside[~labelled].sum(0)
    union = area + target_area[:, None] - inside - void
    matched = (target_classes[:, None] == classes) & ~crowd[:, None] & (2 * inside > union)  # at most one of each
    crowd_of = np.zeros(num_classes, np.int64)  # its row in `overlap`, the last one's; 0: none
    crowds = np.flatnonzero(crowd & labelled)
    crowd_of[target_classes[crowds]] = crowds + 1
    rows = crowd_of[classes]
    excused = void + np.where(rows > 0, overlap[rows, np.arange(1, len(classes) + 1)], 0)
    false = ~matched.any(0) & (2 * excused <= area)
    missed = ~matched.any(1) & ~crowd & labelled
    found_targets, found = np.nonzero(matched)
    counts = np.zeros((len(COUNTED), num_classes), np.int64)
    for row, some in enumerate((classes[found], classes[false], target_classes[missed])):
        counts[row] = np.bincount(some, minlength=num_classes)
    iou = inside[found_targets, found] / union[found_targets, found]
    np.add.at(counts[3], classes[found], np.rint(iou * UNIT).astype(np.int64))
    return counts
