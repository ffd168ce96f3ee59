"""Where does a two-stage method lose? Every mask source crossed with every region classifier (OVSeg Fig. 1c, A.1).

OVSeg's bottleneck analysis is two cells of this grid: ground-truth masks x CLIP on masked crops (20.1 mIoU on
ADE20K-150) against imperfect proposals x oracle labels (66.5); its appendix adds the unmasked crops (13.8). The paper's
proposals come from a MaskFormer; any source of masks can be a row here.

N regions, K classes, D embedding, H W pixels, h w patches. Semantic maps hold class ids or the vocabulary's
ignore_index. Scores of CLIP are cosines; the oracle's are probabilities.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ovs_lite.clip import Clip
from ovs_lite.data.images import read_image
from ovs_lite.data.segments import decode_segments, semantic_map
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix
from ovs_lite.regions.classical import grid_masks, proposals, slic_masks
from ovs_lite.regions.classifiers import (
    CLIP_CLASSIFIERS,
    blank_fraction,
    class_counts,
    clip_probs,
    oracle_probs,
    region_scores,
)

ORACLE = "oracle"
CLASSIFIERS = (*CLIP_CLASSIFIERS, ORACLE)
MaskSource = Callable[[Mapping[str, Any]], np.ndarray]
PIXELS_AT_ONCE = 1 << 13


def truth_masks(record: Mapping[str, Any]) -> np.ndarray:
    """The record's labelled segments, (N, H, W) bool; void and unlabelled segments (category -1) are no regions."""
    ids = _segments(record)
    labelled = [info["id"] for info in record["segments_info"] if info["category_id"] >= 0]
    return ids == np.array(labelled, ids.dtype).reshape(-1, 1, 1)


def _pixels(record: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(read_image(record["image"]))


SOURCES: dict[str, MaskSource] = {
    "ground truth": truth_masks,
    "classical proposals": lambda record: proposals(_pixels(record)),
    "superpixels": lambda record: slic_masks(_pixels(record)),
    "grid": lambda record: grid_masks(_pixels(record)),
}


@dataclass
class RegionGrid:
    """What `evaluate_grid` measured.

    table: {source: {classifier: mIoU in [0, 1]}}. regions: one dict per region and CLIP classifier with image_id,
    source, classifier, area (share of the picture), blank (share of the masked crop's patches that are blank), purity
    (share of the region's labelled pixels that are of its target), target and predicted (class ids), correct,
    similarity (cosine with the target's text). matrices: the counts behind the table. images: how many were read.
    """

    table: dict[str, dict[str, float]]
    regions: list[dict[str, Any]] = field(repr=False)
    matrices: dict[tuple[str, str], ConfusionMatrix] = field(repr=False)
    images: int


@torch.no_grad()
def evaluate_grid(
    records: Iterable[Mapping[str, Any]],
    clip: Clip,
    vocabulary: Vocabulary,
    sources: Mapping[str, MaskSource] | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    templates: str = "vild14",
    absent: str = "union",
) -> RegionGrid:
    """Segment every record with every pair of mask source and classifier, and count.

    sources: name -> function of a record that gives (N, H, W) bool masks; default SOURCES. classifiers: of
    CLASSIFIERS. absent: see `ConfusionMatrix.compute`. Raises ValueError for unknown classifiers, for records without
    segments, and for masks of another size than the picture.
    """
    unknown = set(classifiers) - set(CLASSIFIERS)
    if unknown:
        raise ValueError(f"got classifiers {sorted(unknown)}, expected some of {', '.join(CLASSIFIERS)}")
    sources = SOURCES if sources is None else sources
    text = clip.text_embeddings(list(vocabulary.names), templates)
    matrices = {(s, c): ConfusionMatrix(len(vocabulary), vocabulary.ignore_index) for s in sources for c in classifiers}
    regions: list[dict[str, Any]] = []
    images = 0
    for record in records:
        target = semantic_map(_segments(record), record["segments_info"], vocabulary.ignore_index)
        image = clip.normalise(torch.from_numpy(_pixels(record).copy()).permute(2, 0, 1).to(clip.device) / 255)
        for source, make_masks in sources.items():
            masks = _checked_masks(make_masks(record), target.shape, source).to(clip.device)
            counts = class_counts(target, masks, len(vocabulary))
            facts = _region_facts(record["image_id"], source, clip, image, masks, counts)
            for classifier in classifiers:
                if classifier == ORACLE:
                    probs = oracle_probs(counts)
                else:
                    scores = region_scores(classifier, clip, image, masks, text)
                    probs = clip_probs(scores, clip)
                    regions += _region_rows(classifier, facts, scores.cpu())
                matrices[source, classifier].update(label_map(masks, probs), target)
        images += 1
    table = {s: {c: matrices[s, c].compute(absent).miou for c in classifiers} for s in sources}
    return RegionGrid(table, regions, matrices, images)


def label_map(masks: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Regions with class probabilities -> one label per pixel: argmax over k of sum_n probs[n, k] * masks[n].

    (N, H, W) bool or soft, (N, K) -> (H, W) int64; -1 where no mask lies or all its probabilities are 0. The fusion
    of MaskFormer that OVSeg uses (its section 3.1); chunked over pixels, so K * H * W is never held at once.
    """
    height, width = masks.shape[1:]
    flat = masks.flatten(1).T  # (H * W, N)
    labels = torch.full((height * width,), -1, dtype=torch.int64, device=masks.device)
    for start in range(0, height * width if len(masks) else 0, PIXELS_AT_ONCE):
        best, index = (flat[start : start + PIXELS_AT_ONCE].to(probs.dtype) @ probs).max(1)
        labels[start : start + PIXELS_AT_ONCE] = torch.where(best > 0, index, -1)
    return labels.view(height, width)


def _segments(record: Mapping[str, Any]) -> np.ndarray:
    if record["segments"] is None:
        raise ValueError(f"record {record['image_id']!r} has no segments; the grid needs annotated pictures")
    segments = record["segments"]
    return segments if isinstance(segments, np.ndarray) else decode_segments(segments)


def _checked_masks(masks: np.ndarray, shape: tuple[int, int], source: str) -> torch.Tensor:
    if masks.ndim != 3 or masks.shape[1:] != shape or masks.dtype != bool:
        raise ValueError(f"mask source {source!r} gave {masks.shape} of {masks.dtype}, expected bool of (N, {shape})")
    return torch.from_numpy(masks[masks.any((1, 2))])


def _region_facts(
    image_id: str, source: str, clip: Clip, image: torch.Tensor, masks: torch.Tensor, counts: torch.Tensor
) -> list[dict[str, Any]]:
    """What is known of each region before anybody classifies it; target None where all its pixels are void."""
    blank = blank_fraction(clip, image, masks).tolist()
    area = masks.float().mean((1, 2)).tolist()
    labelled, (most, target) = counts.sum(1), counts.max(1)
    purity = (most / labelled.clamp(min=1)).tolist()
    targets = [int(c) if n > 0 else None for c, n in zip(target, labelled, strict=True)]
    return [
        {"image_id": image_id, "source": source, "area": a, "blank": b, "purity": p, "target": t}
        for a, b, p, t in zip(area, blank, purity, targets, strict=True)
    ]


def _region_rows(classifier: str, facts: list[dict[str, Any]], scores: torch.Tensor) -> list[dict[str, Any]]:
    rows = []
    for fact, row in zip(facts, scores, strict=True):
        if fact["target"] is None:
            continue
        predicted, similarity = int(row.argmax()), float(row[fact["target"]])
        answer = {"predicted": predicted, "correct": predicted == fact["target"], "similarity": similarity}
        rows.append({**fact, "classifier": classifier, **answer})
    return rows
