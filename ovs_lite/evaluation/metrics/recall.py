"""How many annotated masks does a set of proposals find? OpenSeg (Ghiasi et al., ECCV 2022), section 4.2, Table 1.

N proposals, M targets, H W pixels. The paper does not say how its soft proposals are made binary, nor whether a target
is a segment or a class: here a pixel belongs to a proposal where its value is above 0.5, and targets are what is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ovs_lite.matching import pairwise_iou

THRESHOLDS = (0.5, 0.7, 0.9)
BUDGET = 128


def mask_iou(masks: torch.Tensor, target_masks: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every pair: (N, H, W), (M, H, W), bool or soft (> 0.5) -> (N, M) float64.

    float64, so that an IoU that equals a threshold is found. Two empty masks have 0.
    """
    first, second = ((m if m.dtype == torch.bool else m > 0.5).flatten(1).double() for m in (masks, target_masks))
    return pairwise_iou(first, second)


def best_iou(masks: torch.Tensor, target_masks: torch.Tensor, budget: int | None = BUDGET) -> torch.Tensor:
    """The best overlap that each target has with one of the first `budget` proposals: (M,) in [0, 1].

    A proposal may serve several targets. No proposals: all 0. Raises ValueError for masks of different sizes.
    """
    if masks.ndim != 3 or target_masks.ndim != 3 or masks.shape[1:] != target_masks.shape[1:]:
        shapes = f"{tuple(masks.shape)} and {tuple(target_masks.shape)}"
        raise ValueError(f"got proposals and targets of shapes {shapes}, expected (N, H, W) and (M, H, W)")
    if budget is not None and budget < 1:
        raise ValueError(f"got budget={budget}, expected at least one proposal")
    chosen = masks[:budget]
    if len(chosen) == 0 or len(target_masks) == 0:
        return torch.zeros(len(target_masks), dtype=torch.float64, device=target_masks.device)
    return mask_iou(chosen, target_masks.to(masks.device)).max(0).values


def proposal_recall(
    masks: torch.Tensor | Sequence[torch.Tensor],
    target_masks: torch.Tensor | Sequence[torch.Tensor],
    thresholds: Sequence[float] = THRESHOLDS,
    budget: int | None = BUDGET,
) -> dict[float, float]:
    """Share of the targets whose best proposal reaches each IoU threshold: {threshold: recall in [0, 1]}.

    One image, (N, H, W) and (M, H, W), or lists of them, whose targets are then pooled. budget: how many proposals
    count per image, the first ones. NaN where there is no target at all.
    """
    if isinstance(masks, torch.Tensor):
        masks, target_masks = [masks], [target_masks]
    counts = ProposalRecall(tuple(thresholds))
    for image, targets in zip(masks, target_masks, strict=True):
        counts.update(best_iou(image, targets, budget))
    return counts.compute()


@dataclass
class ProposalRecall:
    """Counts over a data set: of `targets`, how many were found at each threshold. Shards merge exactly."""

    thresholds: tuple[float, ...] = THRESHOLDS
    found: torch.Tensor = field(init=False)
    targets: int = 0

    def __post_init__(self):
        self.found = torch.zeros(len(self.thresholds), dtype=torch.int64)

    def update(self, overlaps: torch.Tensor) -> None:
        """Add the best IoU of some targets, (M,), as `best_iou` gives it. IoU equal to the threshold is found."""
        overlaps = overlaps.double().cpu()
        self.found += torch.stack([(overlaps >= t).sum() for t in self.thresholds])
        self.targets += len(overlaps)

    def merge(self, other: "ProposalRecall") -> None:
        """Add another shard's counts. Raises ValueError for other thresholds."""
        if other.thresholds != self.thresholds:
            raise ValueError(f"got thresholds {other.thresholds}, expected {self.thresholds}")
        self.found += other.found
        self.targets += other.targets

    def compute(self) -> dict[float, float]:
        """{threshold: recall in [0, 1]}, NaN without targets."""
        shares = self.found.double() / self.targets if self.targets else torch.full_like(self.found.double(), torch.nan)
        return dict(zip(self.thresholds, shares.tolist(), strict=True))
