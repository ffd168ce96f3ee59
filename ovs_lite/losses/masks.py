"""Losses between predicted and target masks.

B images, N proposals, M_b target masks of image b, H W pixels of the prediction, P pixels of a flattened mask.
Targets have the prediction's size. Half precision is summed as float32, float64 stays. With several processes pass
`count`, the total that the loss is divided by, as `distributed.reduce_sum(...) / world_size()`; averaged gradients are
then those of one process with the whole batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ovs_lite.matching import focal_terms, pairwise_dice
from ovs_lite.tensors import at_least_float32


def best_match_dice_loss(
    mask_probs: torch.Tensor, target_masks: Sequence[torch.Tensor], count: float | None = None
) -> torch.Tensor:
    """Every target pulls at its best proposal, and nothing pushes the others: one scalar in [0, 1].

    OpenSeg, section 3.1, Eq. 1: L_S = 1/M sum_j (1 - max_i Dice(s_i, s_j)). Several targets may choose the same
    proposal; a proposal that no target chooses gets no gradient, so it is free to find regions nobody annotated.
    Dice is 2 sum(s t) / (sum(s) + sum(t)); the paper cites V-Net, whose denominator has squares, which is the same for
    binary masks.
    mask_probs: (B, N, H, W) in [0, 1].
    target_masks: list of B (M_b, H, W), bool or in [0, 1].
    count: what the sum over images is divided by; default the number of images that have targets.
    0 (with gradient 0) where no image has targets. Raises ValueError for shapes that do not fit together.
    """
    check_masks(mask_probs, target_masks)
    losses = []
    for probs, targets in zip(mask_probs, target_masks, strict=True):
        if len(targets):
            dice = pairwise_dice(probs.flatten(1), targets.flatten(1))  # (N, M_b)
            losses.append(1 - dice.max(0).values.mean())
    if not losses:
        return at_least_float32(mask_probs[:0]).sum()
    return torch.stack(losses).sum() / (len(losses) if count is None else count)


def dice_loss(
    mask_logits: torch.Tensor, targets: torch.Tensor, smooth: float = 1.0, count: float | None = None
) -> torch.Tensor:
    """1 - Dice of matched pairs, (M, P) logits and (M, P) in [0, 1] -> mean over pairs, or their sum over `count`.

    MaskFormer (Cheng et al., NeurIPS 2021), L_mask of Eq. 1, with the released code's smooth = 1 above and below
    the line. No pairs: 0 with gradient 0.
    """
    probs = at_least_float32(mask_logits).sigmoid()
    targets = targets.to(probs.dtype)
    dice = (2 * (probs * targets).sum(1) + smooth) / (probs.sum(1) + targets.sum(1) + smooth)
    return (1 - dice).sum() / _pairs(targets, count)


def focal_loss(
    mask_logits: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    count: float | None = None,
) -> torch.Tensor:
    """Focal loss of matched pairs: mean over pixels, then over pairs (or their sum over `count`).

    Lin et al., ICCV 2017, Eq. 5; alpha and gamma of MaskFormer. gamma = 0 with alpha < 0 is binary cross-entropy.
    (M, P) logits, (M, P) in [0, 1]. No pairs: 0 with gradient 0.
    """
    mask_logits = at_least_float32(mask_logits)
    targets = targets.to(mask_logits.dtype)
    inside, outside = focal_terms(mask_logits, alpha, gamma)
    per_pair = (inside * targets + outside * (1 - targets)).sum(1) / max(1, mask_logits.shape[1])
    return per_pair.sum() / _pairs(targets, count)


def covered_share(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(M, H, W) bool -> (M, h, w) float in [0, 1]: the share of every cell that a mask covers."""
    return F.interpolate(masks[:, None].float(), size, mode="area")[:, 0]


def check_masks(mask_probs: torch.Tensor, target_masks: Sequence[torch.Tensor]) -> None:
    """Raises ValueError unless (B, N, H, W) with N >= 1 and a list of B (M_b, H, W) fit together."""
    if mask_probs.ndim != 4 or len(mask_probs) != len(target_masks) or mask_probs.shape[1] == 0:
        given = f"{tuple(mask_probs.shape)} and {len(target_masks)} lists of targets"
        raise ValueError(f"got masks {given}, expected (B, N, H, W) with N >= 1 and B lists of targets")
    for number, targets in enumerate(target_masks):
        if len(targets) and targets.shape[1:] != mask_probs.shape[2:]:
            sizes = f"{tuple(targets.shape)} for predictions {tuple(mask_probs.shape)}"
            raise ValueError(f"got targets {number} of shape {sizes}, expected (M, {mask_probs.shape[2]}, "
                             f"{mask_probs.shape[3]}): resize them to the prediction first")  # fmt: skip


def _pairs(targets: torch.Tensor, count: float | None) -> float:
    return max(1, len(targets)) if count is None else count
