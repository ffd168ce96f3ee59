"""MaskFormer's loss: one-to-one matching, then classification with a "no object" class, focal and Dice terms.

MaskFormer (Cheng et al., NeurIPS 2021), section 3.2, Eq. 1, with the weights and costs of its released code, which
OVSeg keeps. As released, matching happens at the predictions' resolution (targets by their nearest pixel), while the
mask losses are taken at the targets': the logits of the matched pairs, and only these, are resized bilinearly.
B images, N proposals, K classes (column K of the class logits is "no object"), M_b targets, H W pixels of the targets,
h w of the predictions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ovs_lite.losses.masks import check_masks, dice_loss, focal_loss
from ovs_lite.losses.points import sample_points, uncertain_points
from ovs_lite.matching import hungarian, pairwise_dice, pairwise_focal
from ovs_lite.tensors import at_least_float32, nothing_learned

COSTS = {"class": 1.0, "focal": 20.0, "dice": 1.0}
Match = tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def match_masks(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    labels: Sequence[torch.Tensor],
    target_masks: Sequence[torch.Tensor],
) -> list[Match]:
    """The proposal that is matched to each target: B pairs (proposal indices, target indices).

    class_logits: (B, N, K + 1).
    mask_logits: (B, N, h, w).
    labels: list of B (M_b,) int64 in 0..K-1.
    target_masks: list of B (M_b, H, W); of another size than the predictions they are read at the nearest pixel.
    A pair costs minus the probability of the target's class, plus focal loss, plus 1 - Dice, weighted by COSTS.
    """
    size = mask_logits.shape[-2:]
    target_masks = [
        targets if targets.shape[-2:] == size else F.interpolate(targets[:, None].float(), size, mode="nearest")[:, 0]
        for targets in target_masks
    ]
    check_masks(mask_logits, target_masks)
    matches = []
    for logits, masks, label, targets in zip(class_logits, mask_logits, labels, target_masks, strict=True):
        flat, wanted = masks.flatten(1), targets.flatten(1)
        cost = -COSTS["class"] * at_least_float32(logits).softmax(-1)[:, label]
        cost = cost + COSTS["focal"] * pairwise_focal(flat, wanted)
        cost = cost - COSTS["dice"] * pairwise_dice(at_least_float32(flat).sigmoid(), wanted, smooth=1.0)
        matches.append(hungarian(cost))
    return matches


def class_loss(
    class_logits: torch.Tensor,
    labels: Sequence[torch.Tensor],
    matches: Sequence[Match],
    no_object: float = 0.1,
    count: float | None = None,
) -> torch.Tensor:
    """Cross-entropy of every proposal: its target's class where matched, "no object" (weight `no_object`) elsewhere.

    First term of Eq. 1.
    class_logits: (B, N, K + 1).
    labels, matches: as in `match_masks`.
    count: what the weighted sum is divided by; default the sum of the weights, as torch's cross_entropy. The loss is 0
        where that is 0: no target, and no weight for "no object".
    """
    class_logits, last = at_least_float32(class_logits), class_logits.shape[-1] - 1
    wanted = torch.full(class_logits.shape[:2], last, device=class_logits.device)
    for row, label, (proposals, targets) in zip(wanted, labels, matches, strict=True):
        row[proposals] = label[targets]
    weights = class_logits.new_ones(last + 1)
    weights[last] = no_object
    total = F.cross_entropy(class_logits.flatten(0, 1), wanted.flatten(), weights, reduction="sum")
    count = weights[wanted].sum() if count is None else count
    return total / count if count > 0 else nothing_learned(class_logits)


def matched_mask_losses(
    mask_logits: torch.Tensor,
    target_masks: Sequence[torch.Tensor],
    matches: Sequence[Match],
    count: float | None = None,
    num_points: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """{"focal", "dice"} of the matched pairs of all images, unweighted; unmatched proposals are not touched.

    L_mask of Eq. 1.
    mask_logits: (B, N, h, w); those of matched pairs are resized bilinearly to H x W where the sizes differ.
    target_masks: list of B (M_b, H, W), bool or in [0, 1].
    count: what the sums are divided by (the number of targets; at least 1).
    num_points: compare at that many uncertain points per mask instead of at all pixels, drawn with `generator`; logits
        and targets are then sampled each at its own size and nothing is resized, as Mask2Former does.
    """
    pairs = zip(mask_logits, target_masks, matches, strict=True)
    chosen, wanted = zip(*((at_least_float32(m[p]), at_least_float32(t[j])) for m, t, (p, j) in pairs), strict=True)
    logits, targets = torch.cat(chosen), torch.cat(wanted)  # (M, h, w), (M, H, W)
    if num_points is not None and len(logits):
        points = uncertain_points(logits, num_points, generator=generator)
        logits, targets = sample_points(logits, points), sample_points(targets, points)
    elif logits.shape != targets.shape:
        logits = F.interpolate(logits[:, None], targets.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    logits, targets = logits.flatten(1), targets.flatten(1)
    return {"focal": focal_loss(logits, targets, count=count), "dice": dice_loss(logits, targets, count=count)}
