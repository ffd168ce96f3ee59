"""Which mask first: agreement between proposals, non-maximum suppression that drops nothing, several rankings in turn.

N masks, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ovs_lite.matching import pairwise_iou

DUPLICATE_IOU = 0.7  # above it one proposal is a duplicate of another


def agreement(masks: torch.Tensor, overlap: float = DUPLICATE_IOU) -> torch.Tensor:
    """How many masks found each region: the sum of its IoUs above `overlap`, its own included.

    (N, H, W) of 0 and 1 -> (N,). A query that no target ever chose drifts anywhere; many meet where there is something
    to find.
    """
    flat = masks.flatten(1)
    found = pairwise_iou(flat, flat)
    return (found * (found > overlap)).sum(1)


def nms_order(masks: torch.Tensor, overlap: float = DUPLICATE_IOU) -> torch.Tensor:
    """Greedy non-maximum suppression as an order: first the masks that are kept, then the duplicates, then empty ones.

    (N, H, W) of 0 and 1, best first -> (N,) int64. A mask is a duplicate of a better one when their IoU exceeds
    `overlap`.
    """
    flat = masks.flatten(1)
    alike, filled = (pairwise_iou(flat, flat) > overlap).tolist(), flat.any(1).tolist()
    kept: list[int] = []
    duplicates: list[int] = []
    for index in range(len(masks)):
        if filled[index]:
            (duplicates if any(alike[index][better] for better in kept) else kept).append(index)
    empty = [index for index in range(len(masks)) if not filled[index]]
    return torch.tensor(kept + duplicates + empty, dtype=torch.int64, device=masks.device)


def inner_nms(masks: torch.Tensor, overlap: float = 0.5, contained: float = 0.7) -> torch.Tensor:
    """Greedy non-maximum suppression that also drops what lies in a better mask: the places that are kept, ascending.

    (N, H, W) bool, best first -> (kept,) int64. A mask is dropped if its IoU with a kept one is at least `overlap`, if
    at least the share `contained` of its area lies in a kept one, or if it is empty; a threshold above 1 drops nothing.
    Uni-OVSeg's released post-processing, with its thresholds; of a thing and its part the better one alone remains.
    """
    flat = masks.flatten(1).float()
    areas = flat.sum(1)
    with torch.autocast(flat.device.type, enabled=False):  # counts of pixels, which half precision would round
        common = flat @ flat.T
    union = areas[:, None] + areas - common
    drops = (common >= overlap * union) | (common >= contained * areas)  # [kept, later]
    drops, alive = drops.cpu(), (areas > 0).cpu()
    for index in range(len(masks)):
        if alive[index]:
            alive[index + 1 :] &= ~drops[index, index + 1 :]
    return alive.nonzero()[:, 0].to(masks.device)


def take_turns(rankings: Sequence[Sequence[np.ndarray]], budget: int) -> np.ndarray:
    """Several rankings of masks as one: each gives its next mask in turn, duplicates are dropped, until `budget`.

    rankings: each N (H, W) bool masks, best first, at least one in all. Returns (N <= budget, H, W) bool.
    Raises ValueError for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"got budget={budget}, expected at least 1")
    chosen: dict[bytes, np.ndarray] = {}
    for turn in range(max(map(len, rankings))):
        for masks in rankings:
            if turn < len(masks) and len(chosen) < budget:
                chosen.setdefault(np.packbits(masks[turn]).tobytes(), masks[turn])
    return np.stack(list(chosen.values()))
