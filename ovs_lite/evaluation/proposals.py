"""Mask sources compared on one data set: recall at a budget, by budget, on seen and on unseen classes.

OpenSeg (Ghiasi et al., ECCV 2022), section 4.2, Table 1. N proposals, M targets, H W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ovs_lite.data.images import read_image
from ovs_lite.data.segments import record_masks
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.metrics.recall import BUDGET, THRESHOLDS, best_iou, recall_at
from ovs_lite.regions.sources import MaskSource, checked_masks

GROUPS = ("all", "seen", "unseen")
BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class RecallReport:
    """What `evaluate_proposals` measured.

    recall: {source: {"all" | "seen" | "unseen": {threshold: recall in [0, 1]}}}, NaN where a group has no target.
    by_budget: {source: {budget: recall at the lowest threshold}}. targets: {group: how many}. images: how many.
    by_image: {source: {group: per image, how many targets were found at each threshold, and how many there are}}.
    """

    recall: dict[str, dict[str, dict[float, float]]]
    by_budget: dict[str, dict[int, float]]
    targets: dict[str, int]
    images: int
    by_image: dict[str, dict[str, list[list[int]]]] = field(repr=False)

    def difference(
        self, first: str, second: str, threshold: float = 0.5, group: str = "all", draws: int = 2000, seed: int = 0
    ) -> tuple[float, float, float]:
        """Recall of the source `first` minus that of `second`, and its 95 % interval (low, high).

        Percentile bootstrap: images are drawn with replacement, the same for both. Raises ValueError for a threshold
        that was not measured and where the group has no target.
        """
        thresholds = list(self.recall[first][group])
        if threshold not in thresholds or not self.targets[group]:
            given = f"threshold {threshold} and {self.targets[group]} targets of group {group!r}"
            raise ValueError(f"got {given}, expected one of {thresholds} and at least one target")
        counts, others = (np.array(self.by_image[name][group]) for name in (first, second))
        column = thresholds.index(threshold)
        gain, targets = counts[:, column] - others[:, column], counts[:, -1]
        drawn = np.random.default_rng(seed).multinomial(len(gain), np.full(len(gain), 1 / len(gain)), draws)
        found, asked = drawn @ gain, drawn @ targets
        value = float(gain.sum() / targets.sum())
        low, high = np.percentile(found[asked > 0] / asked[asked > 0], (2.5, 97.5))
        return value, min(value, float(low)), max(value, float(high))

    def table(self, groups: Sequence[str] = ("all",)) -> dict[str, dict[str, float]]:
        """{source: {"R50": ..., ...}} as the paper's Table 1 prints it, a column per threshold and group."""
        named = len(groups) > 1
        return {
            source: {
                f"R{100 * t:.0f}{' ' + group if named else ''}": recall
                for group in groups
                for t, recall in found[group].items()
            }
            for source, found in self.recall.items()
        }


def evaluate_proposals(
    records: Iterable[Mapping[str, Any]],
    sources: Mapping[str, MaskSource],
    vocabulary: Vocabulary | None = None,
    seen: Iterable[str] = (),
    thresholds: Sequence[float] = THRESHOLDS,
    budget: int = BUDGET,
) -> RecallReport:
    """Ask every source for `budget` masks per record and count which annotated segments they find.

    sources: name -> `MaskSource`.
    vocabulary, seen: with them, segments of the classes named in `seen` are also counted apart from the others.
    The curve by budget takes the first 1, 2, 4, ... proposals of the same answer. Crowds and unlabelled segments are
    left out. Raises ValueError for no record and for masks that `checked_masks` refuses.
    """
    thresholds = tuple(sorted(thresholds))
    budgets = [b for b in BUDGETS if b < budget] + [budget]
    known = set(seen)
    best = {name: {group: [] for group in GROUPS} for name in sources}
    curves = {name: {b: [] for b in budgets} for name in sources}
    images = 0
    for record in records:
        masks, labels = record_masks(record)
        targets = torch.from_numpy(masks)
        names = [None if vocabulary is None or c < 0 else vocabulary.names[c] for c in labels]
        inside = torch.tensor([name in known for name in names], dtype=bool)
        outside = torch.tensor([name not in known and name is not None for name in names], dtype=bool)
        image = np.asarray(read_image(record["image"]))
        for name, source in sources.items():
            proposals = checked_masks(source(image, budget), image, name).cpu()
            for b in budgets:
                curves[name][b].append(best_iou(proposals, targets, b))
            for group, chosen in (("all", inside | True), ("seen", inside), ("unseen", outside)):
                best[name][group].append(curves[name][budget][-1][chosen])
        images += 1
    if not images:
        raise ValueError("got no record, expected at least one; see what its reader skipped")
    recall, by_budget, by_image = {}, {}, {}
    for name, groups in best.items():
        recall[name] = {group: recall_at(found, thresholds) for group, found in groups.items()}
        by_budget[name] = {b: recall_at(found, thresholds[:1])[thresholds[0]] for b, found in curves[name].items()}
        by_image[name] = {
            group: [[*(int((one >= t).sum()) for t in thresholds), len(one)] for one in found]
            for group, found in groups.items()
        }
    targets = {group: sum(map(len, found)) for group, found in next(iter(best.values()), {}).items()}
    return RecallReport(recall, by_budget, targets, images, by_image)
