"""Where does a two-stage method lose? Every mask source crossed with every region classifier (OVSeg Fig. 1c, A.1).

OVSeg's bottleneck analysis is two cells of this grid: ground-truth masks x CLIP on masked crops (20.1 mIoU on
ADE20K-150) against imperfect proposals x oracle labels (66.5); its appendix adds the unmasked crops (13.8). The paper's
proposals come from a MaskFormer; any `MaskSource` can be a row here, a trained proposer's `propose` too.

N regions, K classes, H W pixels. Semantic maps hold class ids or the vocabulary's ignore_index.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ovs_lite.clip import Clip
from ovs_lite.data.images import read_image
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.regions.classifiers import (
    CLIP_CLASSIFIERS,
    blank_fraction,
    class_counts,
    inside,
    oracle_probs,
    region_scores,
)
from ovs_lite.regions.fusion import label_map
from ovs_lite.regions.sources import BASELINES, MaskSource, checked_masks, ground_truth

GROUND_TRUTH = "ground truth"
ORACLE, PURE_ORACLE = "oracle", "oracle by purity"
CLASSIFIERS = (*CLIP_CLASSIFIERS, ORACLE)
BUDGET = 64


@dataclass
class RegionGrid:
    """What `evaluate_grid` measured.

    table: {source: {classifier: mIoU in [0, 1]}}. regions: one dict per region and CLIP classifier with image_id,
    source, classifier, area (share of the image), blank (share of the masked crop's patches that are blank), purity
    (share of the region's labelled pixels that are of its target), target and predicted (class ids), correct,
    similarity (cosine with the target's text). matrices: the counts behind the table. counts: the same per image, see
    `report`. images: how many were read.
    """

    table: dict[str, dict[str, float]]
    regions: list[dict[str, Any]] = field(repr=False)
    matrices: dict[tuple[str, str], ConfusionMatrix] = field(repr=False)
    images: int
    names: tuple[str, ...] = field(repr=False)
    image_ids: list[str] = field(repr=False)
    counts: dict[tuple[str, str], list[np.ndarray]] = field(repr=False)

    def report(self, source: str, classifier: str) -> SegmentationReport:
        """One cell of the table as a report with counts per image, which `miou_difference` compares."""
        matrix, rows = self.matrices[source, classifier], self.counts[source, classifier]
        counts = np.array(rows, np.int32).reshape(-1, 3, len(self.names))
        protocol = {"source": source, "classifier": classifier}
        return SegmentationReport(self.names, tuple(self.image_ids), {None: matrix}, {None: counts}, protocol)


@torch.no_grad()
def evaluate_grid(
    records: Iterable[Mapping[str, Any]],
    clip: Clip,
    vocabulary: Vocabulary,
    sources: Mapping[str, MaskSource] | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    templates: str = "vild14",
    absent: str = "union",
    budget: int = BUDGET,
) -> RegionGrid:
    """Segment every record with every pair of mask source and classifier, and count.

    sources: name -> `MaskSource`, default BASELINES. The ground truth is always the first row.
    classifiers: of CLASSIFIERS, and PURE_ORACLE: see `oracle_probs`.
    absent: see `ConfusionMatrix.compute`.
    budget: how many masks each source may give; the ground truth gives all.
    Masks that nowhere exceed 0.5 are left out. Crowds are no regions and their pixels are ignored. Raises ValueError
    for unknown classifiers, records without segments, and masks that `checked_masks` refuses.
    """
    unknown = set(classifiers) - {*CLASSIFIERS, PURE_ORACLE}
    if unknown:
        raise ValueError(
            f"got classifiers {sorted(unknown)}, expected some of {', '.join((*CLASSIFIERS, PURE_ORACLE))}"
        )
    sources = BASELINES if sources is None else sources
    text = clip.text_embeddings(list(vocabulary.names), templates)
    rows = (GROUND_TRUTH, *sources)
    cells = [(source, classifier) for source in rows for classifier in classifiers]
    matrices = {cell: ConfusionMatrix(len(vocabulary), vocabulary.ignore_index) for cell in cells}
    by_image: dict[tuple[str, str], list[np.ndarray]] = {cell: [] for cell in cells}
    regions: list[dict[str, Any]] = []
    image_ids: list[str] = []
    for record in records:
        pixels = np.array(read_image(record["image"]))
        found = {GROUND_TRUTH: ground_truth(record)(pixels, None)}
        found |= {name: checked_masks(source(pixels, budget), pixels, name) for name, source in sources.items()}
        target = _target(record, vocabulary.ignore_index)
        image = clip.normalise(torch.from_numpy(pixels).permute(2, 0, 1).to(clip.device) / 255)
        for source, masks in found.items():
            masks = masks[inside(masks).flatten(1).any(1)].to(clip.device)
            counts = class_counts(target, masks, len(vocabulary))
            facts = _region_facts(record["image_id"], source, clip, image, masks, counts)
            for classifier in classifiers:
                if classifier in CLIP_CLASSIFIERS:
                    scores = region_scores(classifier, clip, image, masks, text)
                    probs = clip.probabilities(scores)
                    regions += _region_rows(classifier, facts, scores.cpu())
                else:
                    probs = oracle_probs(counts, by_purity=classifier == PURE_ORACLE)
                one = ConfusionMatrix(len(vocabulary), vocabulary.ignore_index).update(label_map(masks, probs), target)
                matrices[source, classifier].merge(one)
                by_image[source, classifier].append(one.class_pixels())
        image_ids.append(record["image_id"])
    table = {s: {c: matrices[s, c].compute(absent).miou for c in classifiers} for s in rows}
    return RegionGrid(table, regions, matrices, len(image_ids), tuple(vocabulary.names), image_ids, by_image)


def _target(record: Mapping[str, Any], ignore: int) -> np.ndarray:
    """(H, W) class ids; void, unlabelled and crowd pixels, which are in no ground-truth region, are ignored."""
    infos = [info | {"category_id": -1} if info["is_crowd"] else info for info in record["segments_info"]]
    return semantic_map(record["segments"], infos, ignore)


def _region_facts(
    image_id: str, source: str, clip: Clip, image: torch.Tensor, masks: torch.Tensor, counts: torch.Tensor
) -> list[dict[str, Any]]:
    """What is known of each region before it is classified; target None where all its pixels are ignored."""
    blank = blank_fraction(clip, image, masks).tolist()
    area = inside(masks).float().mean((1, 2)).tolist()
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
