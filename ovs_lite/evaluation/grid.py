"""Where does a two-stage method lose? Every mask source crossed with every region classifier (OVSeg Fig. 1c, A.1).

OVSeg's bottleneck analysis is two cells of this grid: ground-truth masks x CLIP on masked crops (20.1 mIoU on
ADE20K-150) against imperfect proposals x oracle labels (66.5); its appendix adds the unmasked crops (13.8). The paper's
proposals come from a MaskFormer; any `MaskSource` can be a row here, a trained proposer's `propose` too, and any pixel-
based method a column: its label map votes in each region ("map correction").

N regions, K classes, H W pixels. Semantic maps hold class ids or the vocabulary's ignore_index.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovs_lite.clip import Clip
from ovs_lite.data.images import read_image
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.blocks import PER_IMAGE
from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix
from ovs_lite.evaluation.segmentation import asked_phrases
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.inference import best_classes, encode_image
from ovs_lite.methods import Method
from ovs_lite.regions.classifiers import (
    CLIP_CLASSIFIERS,
    blank_fraction,
    class_counts,
    inside,
    majority_vote,
    oracle_probs,
    region_scores,
)
from ovs_lite.regions.fusion import label_map
from ovs_lite.regions.sources import BASELINES, MaskSource, checked_masks, ground_truth

GROUND_TRUTH = "ground truth"
ORACLE, PURE_ORACLE = "oracle", "oracle by purity"
CLASSIFIERS = (*CLIP_CLASSIFIERS, ORACLE)
BUDGET = 64
REGION_COLUMNS = 8  # of `_region_rows`
LabelMap = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 RGB -> (H, W) class ids, -1 where there is none


@dataclass
class RegionGrid:
    """What `evaluate_grid` measured.

    table: {source: {classifier: mIoU in [0, 1]}}. regions: one dict per region and CLIP classifier with image_id,
    source, classifier, area (share of the image), blank (share of the masked crop's patches that are blank), purity
    (share of the region's labelled pixels that are of its target), target and predicted (class ids), correct,
    similarity (cosine with the target's text). names, image_ids, counts, ignored: see `report`.
    """

    table: dict[str, dict[str, float]]
    regions: list[dict[str, Any]] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    image_ids: list[str] = field(repr=False)
    counts: dict[tuple[str, str], np.ndarray] = field(repr=False)
    ignored: int

    @property
    def images(self) -> int:
        """How many images were read."""
        return len(self.image_ids)

    def report(self, source: str, classifier: str) -> SegmentationReport:
        """One cell of the table as a report with counts per image, which `miou_difference` compares."""
        counts, protocol = {None: self.counts[source, classifier]}, {"source": source, "classifier": classifier}
        return SegmentationReport(self.names, tuple(self.image_ids), counts, self.ignored, protocol)


def evaluate_grid(
    records: Iterable[Mapping[str, Any]],
    clip: Clip,
    vocabulary: Vocabulary,
    sources: Mapping[str, MaskSource] | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    templates: str = "vild14",
    budget: int = BUDGET,
    maps: Mapping[str, LabelMap] | None = None,
    truth: bool = True,
) -> RegionGrid:
    """Segment every record with every pair of mask source and classifier, and count.

    sources: name -> `MaskSource`, default BASELINES. truth: whether the ground truth is the first row.
    classifiers: of CLASSIFIERS, and PURE_ORACLE: see `oracle_probs`.
    maps: further columns, name -> what gives an image's label map, of which `majority_vote` names the regions, such as
        `label_maps` of a method.
    budget: how many masks each source may give; the ground truth gives all.
    Masks that nowhere exceed 0.5 are left out. Crowds are no regions and their pixels are ignored. Raises ValueError
    for unknown classifiers, a map or source with the name of another, records without segments, and masks that
    `checked_masks` refuses.
    """
    counter = grid_counter(clip, vocabulary, sources, classifiers, templates, budget, maps, truth)
    return counter.report(*counter.count(records))


def grid_counter(
    clip: Clip,
    vocabulary: Vocabulary,
    sources: Mapping[str, MaskSource] | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    templates: str = "vild14",
    budget: int = BUDGET,
    maps: Mapping[str, LabelMap] | None = None,
    truth: bool = True,
) -> "GridCounter":
    """What `evaluate_grid` has to know before it sees an image; its arguments and errors."""
    sources, maps = BASELINES if sources is None else sources, maps or {}
    rows, columns = ((GROUND_TRUTH,) if truth else ()) + tuple(sources), (*classifiers, *maps)
    _check_names(rows, classifiers, columns)
    text = clip.text_embeddings(list(vocabulary.names), templates)
    return GridCounter(clip, vocabulary, rows, columns, dict(sources), dict(maps), text, budget)


@dataclass(frozen=True)
class GridCounter:
    """Counts images one by one. Made by `grid_counter`. rows, columns: names of the sources and of the classifiers."""

    clip: Clip
    vocabulary: Vocabulary
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    sources: dict[str, MaskSource]
    maps: dict[str, LabelMap]
    text: torch.Tensor
    budget: int

    @torch.no_grad()
    def count(self, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], dict[str, np.ndarray]]:
        """Names of N images. Per row r and column c: "r c" (N, 3, K) int32 right, predicted and target pixels;
        "ignored" (N,) pixels; "regions" float64 (all, 8), see `_region_rows`, and how many each image has."""
        names = {(r, c): f"{r} {c}" for r in range(len(self.rows)) for c in range(len(self.columns))}
        cells: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
        ids, ignored, regions = [], [], []
        for record in records:
            counted, unlabelled, found = self._count_image(record)
            for cell, name in names.items():
                cells[name].append(counted[cell])
            ids.append(record["image_id"])
            ignored.append(unlabelled)
            regions.append(np.array(found, np.float64).reshape(-1, REGION_COLUMNS))
        counts = {k: np.array(some, np.int32).reshape(-1, 3, len(self.vocabulary)) for k, some in cells.items()}
        counts["ignored"] = np.array(ignored, np.int64)
        counts["regions"] = np.concatenate([np.zeros((0, REGION_COLUMNS)), *regions])
        return ids, counts | {"regions" + PER_IMAGE: np.array([len(some) for some in regions], np.int64)}

    def report(self, image_ids: Sequence[str], counts: Mapping[str, np.ndarray]) -> RegionGrid:
        """What was counted of N images."""
        cells = {
            (row, column): counts[f"{r} {c}"]
            for r, row in enumerate(self.rows)
            for c, column in enumerate(self.columns)
        }
        owners = np.repeat(np.arange(len(image_ids)), counts["regions" + PER_IMAGE])
        regions = [self._region(image_ids[n], row) for n, row in zip(owners, counts["regions"].tolist(), strict=True)]
        ignored = int(counts["ignored"].sum())
        grid = RegionGrid({}, regions, tuple(self.vocabulary.names), list(image_ids), cells, ignored)
        grid.table = {row: {c: grid.report(row, c).scores.miou for c in self.columns} for row in self.rows}
        return grid

    def _region(self, image_id: str, row: Sequence[float]) -> dict[str, Any]:
        r, c, area, blank, purity, target, predicted, similarity = row
        return {
            "image_id": image_id, "source": self.rows[int(r)], "area": area, "blank": blank, "purity": purity,
            "target": int(target), "classifier": self.columns[int(c)], "predicted": int(predicted),
            "correct": predicted == target, "similarity": similarity,
        }  # fmt: skip

    def _count_image(self, record: Mapping[str, Any]) -> tuple[dict[tuple[int, int], np.ndarray], int, list]:
        """Pixels of each cell, ignored pixels, and the rows of `_region_rows`."""
        pixels, ignore = np.array(read_image(record["image"])), self.vocabulary.ignore_index
        masks_of, target = self._masks(record, pixels), _target(record, ignore)
        labels = {name: label_map_of(pixels) for name, label_map_of in self.maps.items()}
        image = self.clip.normalise(torch.from_numpy(pixels).permute(2, 0, 1).to(self.clip.device) / 255)
        counted, regions = {}, []
        for r, masks in enumerate(masks_of):
            masks = masks[inside(masks).flatten(1).any(1)].to(self.clip.device)
            counts = class_counts(target, masks, len(self.vocabulary))
            facts = _region_facts(self.clip, image, masks, counts)
            for c, classifier in enumerate(self.columns):
                if classifier in self.maps:
                    probs = majority_vote(labels[classifier], masks, len(self.vocabulary))
                elif classifier in CLIP_CLASSIFIERS:
                    scores = region_scores(classifier, self.clip, image, masks, self.text)
                    probs = self.clip.probabilities(scores)
                    regions += _region_rows(r, c, facts, scores.cpu())
                else:
                    probs = oracle_probs(counts, by_purity=classifier == PURE_ORACLE)
                one = ConfusionMatrix(len(self.vocabulary), ignore).update(label_map(masks, probs), target)
                counted[r, c] = one.class_pixels()
        return counted, int((target == ignore).sum()), regions

    def _masks(self, record: Mapping[str, Any], pixels: np.ndarray) -> list[torch.Tensor]:
        """The masks of every row."""
        own = ground_truth(record)
        given = {
            name: checked_masks(source(pixels, self.budget), pixels, name) for name, source in self.sources.items()
        }
        return [own(pixels, None) if name not in given else given[name] for name in self.rows]


def label_maps(method: Method, vocabulary: Vocabulary, templates: str | None = None, **options) -> LabelMap:
    """The label maps of a method, as `evaluate_segmentation` counts them: with sliding windows, and with background
    below the method's own threshold. templates: default the method's. options: of `method.scores`.

    Raises ValueError for a vocabulary with a background and a method that names no threshold.
    """
    threshold = method.background_below(**options)
    if vocabulary.background is not None and threshold is None:
        given = f"got {method.name}, which names no threshold for the background of {vocabulary.name}"
        raise ValueError(f"{given}; expected a vocabulary without background, or a method with a threshold")
    words, owners = asked_phrases(vocabulary)
    text = method.clip.text_embeddings(words, templates or method.templates)

    def labels(image: np.ndarray) -> np.ndarray:
        scores = encode_image(method, Image.fromarray(image)).scores(text, **options)
        best, found = (part[0].cpu().numpy() for part in best_classes(scores, image.shape[:2]))
        classes = np.array(owners)[found]
        return classes if vocabulary.background is None else np.where(best < threshold, vocabulary.background, classes)

    return labels


def _check_names(rows: Sequence[str], classifiers: Sequence[str], columns: Sequence[str]) -> None:
    if unknown := set(classifiers) - {*CLASSIFIERS, PURE_ORACLE}:
        known = ", ".join((*CLASSIFIERS, PURE_ORACLE))
        raise ValueError(f"got classifiers {sorted(unknown)}, expected some of {known}")
    for names in (rows, columns):
        if not names or len(set(names)) < len(names):
            raise ValueError(f"got the names {', '.join(names) or 'of nothing'}, expected at least one, and each once")


def _target(record: Mapping[str, Any], ignore: int) -> np.ndarray:
    """(H, W) class ids; void, unlabelled and crowd pixels, which are in no ground-truth region, are ignored."""
    infos = [info | {"category_id": -1} if info["is_crowd"] else info for info in record["segments_info"]]
    return semantic_map(record["segments"], infos, ignore)


def _region_facts(
    clip: Clip, image: torch.Tensor, masks: torch.Tensor, counts: torch.Tensor
) -> list[tuple[float, float, float, int | None]]:
    """Area, blank share, purity and target of each region, before it is classified; target None where all its pixels
    are ignored."""
    blank = blank_fraction(clip, image, masks).tolist()
    area = inside(masks).float().mean((1, 2)).tolist()
    labelled, (most, target) = counts.sum(1), counts.max(1)
    purity = (most / labelled.clamp(min=1)).tolist()
    targets = [int(c) if n > 0 else None for c, n in zip(target, labelled, strict=True)]
    return list(zip(area, blank, purity, targets, strict=True))


def _region_rows(row: int, column: int, facts: Sequence[tuple], scores: torch.Tensor) -> list[tuple[float, ...]]:
    """Row and column of the grid, the facts, the predicted class and the cosine with the target's text."""
    found = []
    for fact, of_classes in zip(facts, scores, strict=True):
        if fact[3] is not None:
            found.append((row, column, *fact, int(of_classes.argmax()), float(of_classes[fact[3]])))
    return found
