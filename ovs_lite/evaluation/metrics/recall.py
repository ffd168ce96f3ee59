"""How many annotated masks does a set of proposals find? OpenSeg (Ghiasi et al., ECCV 2022), section 4.2, Table 1.

N proposals, M targets, H W pixels. The paper does not say how its soft proposals are made binary, nor whether a target
is a segment or a class: here a pixel belongs to a proposal where its value is above 0.5, and targets are what is given.
"""

from collections.abc import Sequence

import torch

from ovs_lite.matching import exact_iou
from ovs_lite.regions.classifiers import inside

THRESHOLDS = (0.5, 0.7, 0.9)
BUDGET = 128


def mask_iou(masks: torch.Tensor, target_masks: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every pair: (N, H, W), (M, H, W), bool or soft (> 0.5) -> (N, M) float64.

    float64, so that an IoU that equals a threshold is found. Two empty masks have 0.
    """
    return exact_iou(inside(masks).flatten(1), inside(target_masks).flatten(1))


def best_iou(masks: torch.Tensor, target_masks: torch.Tensor, budget: int | None = BUDGET) -> torch.Tensor:
    """The best overlap that each target has with one of the first `budget` proposals: (M,) in [0, 1].

    A proposal may serve several targets. No proposals: all 0. Raises ValueError for masks of different sizes.
    """
    return best_ious(masks, target_masks, (budget,))[0]


def best_ious(masks: torch.Tensor, target_masks: torch.Tensor, budgets: Sequence[int | None]) -> list[torch.Tensor]:
    """`best_iou` at several budgets; masks are compared once."""
    if masks.ndim != 3 or target_masks.ndim != 3 or masks.shape[1:] != target_masks.shape[1:]:
        shapes = f"{tuple(masks.shape)} and {tuple(target_masks.shape)}"
        raise ValueError(f"got proposals and targets of shapes {shapes}, expected (N, H, W) and (M, H, W)")
    if any(budget is not None and budget < 1 for budget in budgets):
        raise ValueError(f"got budget={min(b for b in budgets if b is not None)}, expected at least one proposal")
    chosen = masks if None in budgets else masks[: max(budgets)]
    if len(chosen) == 0 or len(target_masks) == 0:
        return [torch.zeros(len(target_masks), dtype=torch.float64, device=target_masks.device)] * len(budgets)
    overlaps = mask_iou(chosen, target_masks.to(masks.device))
    return [overlaps[:budget].max(0).values for budget in budgets]


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
    overlaps = [best_iou(image, targets, budget) for image, targets in zip(masks, target_masks, strict=True)]
    return recall_at(overlaps, thresholds)


def recall_at(overlaps: Sequence[torch.Tensor], thresholds: Sequence[float] = THRESHOLDS) -> dict[float, float]:
    """{threshold: recall in [0, 1]} of the targets of all images, NaN without any.

    overlaps: (M,) best IoU of each target, as `best_iou` gives it, per image. IoU equal to the threshold is found.
    """
    best = torch.cat([torch.zeros(0), *(some.double().cpu() for some in overlaps)])
    return {t: float((best >= t).double().mean()) for t in thresholds}
