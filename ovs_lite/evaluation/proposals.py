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
from ovs_lite.evaluation.metrics.intervals import Estimate, ratio_difference, ratio_interval
from ovs_lite.evaluation.metrics.recall import BUDGET, THRESHOLDS, best_ious
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

    def difference(self, first: str, second: str, threshold: float = 0.5, group: str = "all") -> Estimate:
        """Recall of the source `first` minus that of `second`, and its interval over images.

        Raises ValueError for a threshold that was not measured and where the group has no target.
        """
        return ratio_interval(*self._gain(first, second, threshold, group))

    def change_of_difference(
        self, first: str, second: str, groups: tuple[str, str] = ("unseen", "seen"), threshold: float = 0.5
    ) -> Estimate:
        """`difference` on the first of two groups minus that on the second, and its interval over the same images.

        What is left of a lead on one group after what the sources differ by on the other. Raises ValueError as
        `difference` does.
        """
        return ratio_difference(*(self._gain(first, second, threshold, group) for group in groups))

    def _gain(self, first: str, second: str, threshold: float, group: str) -> tuple[np.ndarray, np.ndarray]:
        """(N,) how many more targets of an image `first` finds than `second`, and how many there are."""
        thresholds = list(self.recall[first][group])
        if threshold not in thresholds or not self.targets[group]:
            given = f"threshold {threshold} and {self.targets[group]} targets of group {group!r}"
            raise ValueError(f"got {given}, expected one of {thresholds} and at least one target")
        counts, others = (np.array(self.by_image[name][group]) for name in (first, second))
        column = thresholds.index(threshold)
        return counts[:, column] - others[:, column], counts[:, -1]

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
    counter = proposal_counter(sources, vocabulary, seen, thresholds, budget)
    return counter.report(*counter.count(records))


def proposal_counter(
    sources: Mapping[str, MaskSource],
    vocabulary: Vocabulary | None = None,
    seen: Iterable[str] = (),
    thresholds: Sequence[float] = THRESHOLDS,
    budget: int = BUDGET,
) -> "ProposalCounter":
    """What `evaluate_proposals` has to know before it sees an image; its arguments."""
    budgets = (*(b for b in BUDGETS if b < budget), budget)
    return ProposalCounter(dict(sources), vocabulary, frozenset(seen), tuple(sorted(thresholds)), budgets)


@dataclass(frozen=True)
class ProposalCounter:
    """Counts found targets of images one by one. Made by `proposal_counter`; thresholds and budgets ascend."""

    sources: dict[str, MaskSource]
    vocabulary: Vocabulary | None
    seen: frozenset[str]
    thresholds: tuple[float, ...]
    budgets: tuple[int, ...]

    def count(self, records: Iterable[Mapping[str, Any]]) -> tuple[list[str], dict[str, np.ndarray]]:
        """Names of N images. Per source k: "k GROUP" (N, T + 1), targets found at each threshold and all; "k budgets"
        (N, B), targets found at the lowest threshold by the first proposals of each budget."""
        widths = dict.fromkeys(GROUPS, len(self.thresholds) + 1) | {"budgets": len(self.budgets)}
        rows = {f"{k} {name}": [] for k in range(len(self.sources)) for name in widths}
        ids = []
        for record in records:
            targets, groups = self._targets(record)
            image = np.asarray(read_image(record["image"]))
            for k, (name, source) in enumerate(self.sources.items()):
                proposals = checked_masks(source(image, self.budgets[-1]), image, name).cpu()
                best = best_ious(proposals, targets, self.budgets)
                rows[f"{k} budgets"].append([int((one >= self.thresholds[0]).sum()) for one in best])
                for group, chosen in groups.items():
                    own = best[-1][chosen]
                    rows[f"{k} {group}"].append([*(int((own >= t).sum()) for t in self.thresholds), len(own)])
            ids.append(record.get("image_id", ""))
        return ids, {key: np.array(r, np.int64).reshape(-1, widths[key.split(" ")[1]]) for key, r in rows.items()}

    def report(self, image_ids: Sequence[str], counts: Mapping[str, np.ndarray]) -> RecallReport:
        """What was counted of N images. Raises ValueError for no image."""
        if not len(image_ids):
            raise ValueError("got no record, expected at least one; see what its reader skipped")
        recall, by_budget, by_image = {}, {}, {}
        for k, name in enumerate(self.sources):
            groups = {group: counts[f"{k} {group}"] for group in GROUPS}
            recall[name] = {
                group: dict(zip(self.thresholds, _shares(rows), strict=True)) for group, rows in groups.items()
            }
            curve = np.concatenate([counts[f"{k} budgets"], groups["all"][:, -1:]], 1)
            by_budget[name] = dict(zip(self.budgets, _shares(curve), strict=True))
            by_image[name] = {group: rows.tolist() for group, rows in groups.items()}
        targets = {group: int(counts[f"0 {group}"][:, -1].sum()) for group in GROUPS if self.sources}
        return RecallReport(recall, by_budget, targets, len(image_ids), by_image)

    def _targets(self, record: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(M, H, W) bool, and for each group which of them are in it."""
        masks, labels = record_masks(record)
        names = [None if self.vocabulary is None or c < 0 else self.vocabulary.names[c] for c in labels]
        inside = torch.tensor([name in self.seen for name in names], dtype=bool)
        outside = torch.tensor([name not in self.seen and name is not None for name in names], dtype=bool)
        return torch.from_numpy(masks), dict(zip(GROUPS, (inside | True, inside, outside), strict=True))


def _shares(rows: np.ndarray) -> list[float]:
    """(N, K + 1) -> K sums over images divided by that of the last column, NaN where it is 0."""
    *found, asked = rows.sum(0).tolist()
    return [one / asked if asked else float("nan") for one in found]
