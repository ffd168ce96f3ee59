"""Pairwise costs between predicted and target masks, as products of matrices: no N x M x P tensor is made.

N predicted masks, M target masks, P pixels (or sampled points) of a flattened mask. Further axes may stand before: of
a batch (B, N, P) and (B, M, P) every image's pairs are (B, N, M).
"""

import torch
import torch.nn.functional as F

from ovs_lite.tensors import at_least_float32

EXACT = 1 << 24  # below it float32 holds every integer


def pairwise_dice(mask_probs: torch.Tensor, targets: torch.Tensor, smooth: float = 0.0) -> torch.Tensor:
    """Dice coefficient of every pair, (N, P) in [0, 1] and (M, P) in [0, 1] -> (N, M) in [0, 1].

    (2 sum(s t) + smooth) / (sum(s) + sum(t) + smooth). smooth: 1 in MaskFormer's released code. Two empty masks have
    0 with smooth = 0, so that nothing can be won by predicting nothing. The sums are taken in float32 or wider, under
    autocast too.
    """
    mask_probs = at_least_float32(mask_probs)
    targets = targets.to(mask_probs.dtype)
    overlap = _product(mask_probs, targets)
    sizes = mask_probs.sum(-1)[..., None] + targets.sum(-1)[..., None, :]
    return (2 * overlap + smooth) / (sizes + smooth).clamp(min=torch.finfo(sizes.dtype).eps)


def pairwise_iou(masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every pair, (N, P) and (M, P) of 0 and 1 -> (N, M) in [0, 1]; of two empty ones 0."""
    masks, targets = at_least_float32(masks), at_least_float32(targets)
    return _iou(_product(masks, targets), masks.sum(-1), targets.sum(-1))


def exact_iou(masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`pairwise_iou` of bool masks in float64, so that an IoU that equals a threshold is one: (N, P), (M, P) -> (N, M).

    Pixels are counted in float32, which is exact below 2^24 of them, else in float64.
    """
    kind = torch.float32 if masks.shape[-1] < EXACT else torch.float64
    masks, targets = masks.to(kind), targets.to(kind)
    return _iou(_product(masks, targets).double(), masks.sum(-1).double(), targets.sum(-1).double())


def pairwise_focal(
    mask_logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean focal loss of every pair, (N, P) logits and (M, P) in [0, 1] -> (N, M). See `losses.masks.focal_loss`.

    gamma = 0 and alpha < 0 give the binary cross-entropy of every pair.
    """
    mask_logits = at_least_float32(mask_logits)
    targets = targets.to(mask_logits.dtype)
    inside, outside = focal_terms(mask_logits, alpha, gamma)
    return (_product(inside - outside, targets) + outside.sum(-1)[..., None]) / max(1, mask_logits.shape[-1])


def focal_terms(logits: torch.Tensor, alpha: float, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a pixel costs where the target is 1, and where it is 0: two tensors of the logits' shape.

    Focal loss (Lin et al., ICCV 2017, Eq. 5): alpha (1 - p)^gamma (-log p) and (1 - alpha) p^gamma (-log(1 - p)).
    alpha < 0: no weighting of the two sides. The powers are taken as exp(gamma log): the gradient of 0^gamma with
    gamma < 1 is infinite, that of its logarithm is not.
    """
    missed, false = F.softplus(-logits), F.softplus(logits)  # -log p, -log(1 - p)
    inside, outside = (-gamma * false).exp() * missed, (-gamma * missed).exp() * false
    return (inside, outside) if alpha < 0 else (alpha * inside, (1 - alpha) * outside)


def _iou(overlap: torch.Tensor, sizes: torch.Tensor, target_sizes: torch.Tensor) -> torch.Tensor:
    """Pixels that N and M masks share (N, M), and that each has, (N,) and (M,) -> (N, M)."""
    return overlap / (sizes[..., None] + target_sizes[..., None, :] - overlap).clamp(min=1)


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(N, P), (M, P) -> (N, M) in the inputs' own precision: autocast would sum the pixels in half precision."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second.mT
