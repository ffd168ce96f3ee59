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
    0 with smooth = 0, so that nothing can be won by predicting nothing. The sums are taken in float32 or wider, under
    autocast too.
    """
    mask_probs = wide(mask_probs)
    targets = targets.to(mask_probs.dtype)
    overlap = _product(mask_probs, targets)
    sizes = mask_probs.sum(1)[:, None] + targets.sum(1)
    return (2 * overlap + smooth) / (sizes + smooth).clamp(min=torch.finfo(sizes.dtype).eps)


def pairwise_focal(
    mask_logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean focal loss of every pair, (N, P) logits and (M, P) in [0, 1] -> (N, M). See `losses.masks.focal_loss`.

    gamma = 0 and alpha < 0 give the binary cross-entropy of every pair.
    """
    mask_logits = wide(mask_logits)
    targets = targets.to(mask_logits.dtype)
    inside, outside = focal_terms(mask_logits, alpha, gamma)
    return (_product(inside - outside, targets) + outside.sum(1)[:, None]) / max(1, mask_logits.shape[1])


def focal_terms(logits: torch.Tensor, alpha: float, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a pixel costs where the target is 1, and where it is 0: two tensors of the logits' shape.

    Focal loss (Lin et al., ICCV 2017, Eq. 5): alpha (1 - p)^gamma (-log p) and (1 - alpha) p^gamma (-log(1 - p)).
    alpha < 0: no weighting of the two sides. The powers are taken as exp(gamma log): the gradient of 0^gamma with
    gamma < 1 is infinite, that of its logarithm is not.
    """
    missed, false = F.softplus(-logits), F.softplus(logits)  # -log p, -log(1 - p)
    inside, outside = (-gamma * false).exp() * missed, (-gamma * missed).exp() * false
    return (inside, outside) if alpha < 0 else (alpha * inside, (1 - alpha) * outside)


def hungarian(cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One-to-one assignment of least total cost: (N, M) -> (rows, cols), both (min(N, M),) int64, rows ascending.

    On a CPU by SciPy; the answer lies on the device of `cost`. Raises ValueError for a cost that is not a matrix or
    holds NaN or infinity, which would otherwise be matched in silence.
    """
    if cost.ndim != 2:
        raise ValueError(f"got a cost of shape {tuple(cost.shape)}, expected (N, M)")
    matrix = wide(cost.detach()).cpu()
    if not torch.isfinite(matrix).all():
        raise ValueError(f"got a cost of shape {tuple(cost.shape)} with NaN or infinity; did the training diverge?")
    rows, cols = linear_sum_assignment(matrix.numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(cols, device=cost.device)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32, float64 as it is: sums over pixels overflow half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(N, P), (M, P) -> (N, M) in the inputs' own precision: autocast would sum the pixels in half precision."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second.T
