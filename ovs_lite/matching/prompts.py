"""Which of a prompt's predictions are matched to which of the targets that it points at.

P prompts, each with K predictions; M targets of the image.

Uni-OVSeg (Wang et al., 2024), section 3: "a many-to-many matching strategy to automatically associate the ground-truth
masks with the mask predictions of each point". Neither paper nor released code says how (of the latter only settings
are public, a threshold of 0.7 for positives among them), so `many_to_many` is this kit's reading.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ovs_lite.tensors import at_least_float32


def one_to_one(cost: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Within each prompt, the assignment of least cost between its predictions and its targets.

    cost: (P, K, M), finite. inside: (P, M) bool, the targets of a prompt, those that contain the point.
    Returns (P, K, M) bool: no prediction has two targets and no target two predictions; min(K, targets) pairs.
    Raises ValueError for a cost that is not finite, and for shapes that do not fit.
    """
    if cost.ndim != 3 or inside.shape != (cost.shape[0], cost.shape[2]):
        raise ValueError(f"got {tuple(cost.shape)} and {tuple(inside.shape)}, expected (P, K, M) and (P, M)")
    costs = at_least_float32(cost.detach()).cpu().numpy()
    if not np.isfinite(costs).all():
        raise ValueError(f"got a cost of shape {tuple(cost.shape)} with NaN or infinity; did the training diverge?")
    matched = np.zeros(costs.shape, bool)
    for prompt, targets in enumerate(inside.cpu().numpy()):
        own = np.flatnonzero(targets)
        if len(own) == 1:  # the least of K numbers: most prompts
            matched[prompt, costs[prompt, :, own[0]].argmin(), own[0]] = True
        elif len(own):
            rows, columns = linear_sum_assignment(costs[prompt][:, own])
            matched[prompt, rows, own[columns]] = True
    return torch.from_numpy(matched).to(cost.device)


def many_to_many(cost: torch.Tensor, iou: torch.Tensor, inside: torch.Tensor, positive: float = 0.7) -> torch.Tensor:
    """`one_to_one`, and every further prediction that already finds one of the prompt's targets.

    cost, inside: as of `one_to_one`. iou: (P, K, M) in [0, 1] of the binary masks.
    positive: prediction k is also matched to target j of its prompt where iou[k, j] is at least this much; above 1:
        never.
    So every target of a point is matched (while there are at most K), several predictions may share a target, one
    prediction may have several that are nearly the same, and what is left over is not penalised.
    Returns (P, K, M) bool.
    """
    return one_to_one(cost, inside) | ((iou >= positive) & inside[:, None])


def best_of_k(cost: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Each prompt's cheapest prediction for the one target that it was drawn for.

    SAM (Kirillov et al., ICCV 2023), section 3: "we backpropagate only the minimum loss over masks".
    cost: (P, K, M). wanted: (P,) int64 place of the target, -1 for none. Returns (P, K, M) bool.
    """
    matched = torch.zeros(cost.shape, dtype=torch.bool, device=cost.device)
    prompts = (wanted >= 0).nonzero()[:, 0]
    targets = wanted[prompts]
    matched[prompts, cost[prompts, :, targets].argmin(1), targets] = True
    return matched
