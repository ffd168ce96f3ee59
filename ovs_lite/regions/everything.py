"""Everything in an image: which of a method's named proposals are shown, and how they lie on top of each other.

N masks, K classes, R regions, H W pixels; masks are (N, H, W) soft in [0, 1]. Segments that share no pixel and follow a
data set's rules: `regions/panoptic.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ovs_lite.regions.ranking import DUPLICATE_IOU, inner_nms

BUDGET = 20  # regions that an overlay can still show
INSIDE = 0.7  # share of its area with which a region lies in another
NEVER = 2.0  # no share reaches it


def named_regions(
    masks: torch.Tensor,
    probs: torch.Tensor,
    budget: int = BUDGET,
    least_score: float = 0.0,
    overlap: float = DUPLICATE_IOU,
) -> list[dict[str, Any]]:
    """The regions that are shown, best first: at most `budget` of {"mask": (H, W) bool, "category_id", "score"}.

    probs: (N, K) in [0, 1]; rows need not sum to 1. A region's class is the most probable one; its score that
        probability times the mean of the mask where it exceeds 0.5, Mask2Former's for instances (Cheng et al., CVPR
        2022, released code).
    overlap: of two masks whose IoU is at least this the better is kept, whatever their classes, so that a thing found
        twice has one name. So is the better of two of one class, if the other lies in it: a cup in a cup is a
        duplicate, a wheel in a car is not.
    Empty masks and scores below least_score are left out. Raises ValueError for shapes that do not fit, a budget below
    1 and an overlap outside 0..1.
    """
    if masks.ndim != 3 or probs.ndim != 2 or len(masks) != len(probs) or not probs.shape[1]:
        given = f"masks {tuple(masks.shape)} and probs {tuple(probs.shape)}"
        raise ValueError(f"got {given}, expected (N, H, W) and (N, K) with K >= 1")
    if budget < 1 or not 0 <= overlap <= 1:
        raise ValueError(f"got budget={budget} and overlap={overlap}, expected at least 1, and 0..1")
    inside = masks > 0.5
    sure = (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    best, classes = probs.max(1)
    scores = best * sure
    order = scores.argsort(descending=True, stable=True)
    order = order[inside[order].flatten(1).any(1) & (scores[order] >= least_score)]
    order = order[inner_nms(inside[order], overlap, contained=NEVER)]
    alone = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    for category in classes[order].unique():
        alike = order[classes[order] == category]
        alone[alike[inner_nms(inside[alike], NEVER, INSIDE)]] = True
    kept = order[alone[order]][:budget].tolist()
    return [{"mask": inside[i], "category_id": int(classes[i]), "score": float(scores[i])} for i in kept]


def region_labels(regions: Sequence[dict[str, Any]], size: tuple[int, int]) -> torch.Tensor:
    """Regions of `named_regions` laid on top of each other, smaller over larger: (H, W) int64 places in the list.

    -1 where there is none; of equal areas the better lies on top. size: (H, W).
    """
    labels = torch.full(size, -1, dtype=torch.int64)
    areas = [int(region["mask"].sum()) for region in regions]
    for place in sorted(range(len(regions)), key=lambda place: (-areas[place], -place)):
        labels[regions[place]["mask"].cpu()] = place
    return labels
