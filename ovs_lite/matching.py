"""Who belongs to whom: pairwise costs between predicted and target masks, and the assignment of least cost.

N predicted masks, M target masks, P pixels (or sampled points) of a flattened mask. Everything pairwise is a product of
(N, P) with (P, M): no N x M x P tensor is made.
"""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment


def pairwise_dice(mask_probs: torch.Tensor, targets: torch.Tensor, smooth: float = 0.0) -> torch.Tensor:
    """Dice coefficient of every pair, (N, P) in [0, 1] and (M, P) in [0, 1] -> (N, M) in [0, 1].

    (2 sum(s t) + smooth) / (sum(s) + sum(t) + smooth). smooth: 1 in MaskFormer's released code. Two empty masks have
    0 with smooth = 0, so that nothing can be won by predicting nothing. The sums are taken in float32 or wider.
    """
    mask_probs, targets = _wide(mask_probs), _wide(targets).to(_wide(mask_probs).dtype)
    overlap = mask_probs @ targets.T
    sizes = mask_probs.sum(1)[:, None] + targets.sum(1)
    return (2 * overlap + smooth) / (sizes + smooth).clamp(min=torch.finfo(sizes.dtype).tiny)


def pairwise_focal(
    mask_logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean focal loss of every pair, (N, P) logits and (M, P) in [0, 1] -> (N, M). See `losses.masks.focal_loss`.

    gamma = 0 and alpha < 0 give the binary cross-entropy of every pair.
    """
    mask_logits = _wide(mask_logits)
    targets = targets.to(mask_logits.dtype)
    inside, outside = focal_terms(mask_logits, alpha, gamma)
    return ((inside - outside) @ targets.T + outside.sum(1)[:, None]) / max(1, mask_logits.shape[1])


def focal_terms(logits: torch.Tensor, alpha: float, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a pixel costs where the target is 1, and where it is 0: two tensors of the logits' shape.

    Focal loss (Lin et al., ICCV 2017, Eq. 5): alpha (1 - p)^gamma (-log p) and (1 - alpha) p^gamma (-log(1 - p)).
    alpha < 0: no weighting of the two sides.
    """
    probs = logits.sigmoid()
    inside, outside = (1 - probs) ** gamma * F.softplus(-logits), probs**gamma * F.softplus(logits)
    return (inside, outside) if alpha < 0 else (alpha * inside, (1 - alpha) * outside)


def hungarian(cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One-to-one assignment of least total cost: (N, M) -> (rows, cols), both (min(N, M),) int64, rows ascending.

    On a CPU by SciPy; the answer lies on the device of `cost`. Raises ValueError for a cost that is not a matrix or
    holds NaN or infinity, which would otherwise be matched in silence.
    """
    if cost.ndim != 2:
        raise ValueError(f"got a cost of shape {tuple(cost.shape)}, expected (N, M)")
    matrix = cost.detach().float().cpu() if cost.dtype != torch.float64 else cost.detach().cpu()
    if not torch.isfinite(matrix).all():
        raise ValueError(f"got a cost of shape {tuple(cost.shape)} with NaN or infinity; did the training diverge?")
    rows, cols = linear_sum_assignment(matrix.numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(cols, device=cost.device)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: sums over pixels overflow half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
