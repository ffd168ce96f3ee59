"""Losses of a promptable segmenter: several predictions for each prompt, several targets that it may mean.

Uni-OVSeg (Wang et al., 2024), section 3, Eq. 4: once matched, every prediction learns its target by binary
cross-entropy and Dice, and nothing else is penalised; SAM (Kirillov et al., ICCV 2023), section 3, for the quality.
B images, P prompts of each, K predictions of each prompt, M_b targets of image b, R matched pairs, H W pixels of the
targets, h w of the predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from ovs_lite.losses.masks import covered_share, dice_loss, focal_loss
from ovs_lite.losses.points import pixels_at_points, sample_points, uncertain_points
from ovs_lite.matching import best_of_k, many_to_many, one_to_one, pairwise_dice, pairwise_focal, pairwise_iou
from ovs_lite.tensors import at_least_float32

MATCHINGS = ("many-to-many", "one-to-one", "best-of-k")
COSTS = {"bce": 2.0, "dice": 1.0}  # of a pair, as the loss weighs it
CROSS_ENTROPY = {"alpha": -1.0, "gamma": 0.0}  # what focal loss is without its weights


@dataclass(frozen=True)
class PromptMatches:
    """Which prediction is matched to which target.

    pairs: (R, 4) int64: image, prompt, prediction, target.
    quality: (B, P, K) in [0, 1]: the best IoU of a prediction with a target of its prompt; 0 without any.
    pointed: (B, P) bool: prompts that have a target at all.
    """

    pairs: torch.Tensor
    quality: torch.Tensor
    pointed: torch.Tensor

    @property
    def matched(self) -> torch.Tensor:
        """(B, P, K) bool: predictions with at least one target."""
        found = torch.zeros(self.quality.shape, dtype=torch.bool, device=self.quality.device)
        found[tuple(self.pairs[:, :3].T)] = True
        return found


@torch.no_grad()
def match_prompts(
    mask_logits: torch.Tensor,
    target_masks: Sequence[torch.Tensor],
    inside: Sequence[torch.Tensor],
    wanted: torch.Tensor,
    matching: str = "many-to-many",
    positive: float = 0.7,
) -> PromptMatches:
    """Match the predictions of every prompt to the targets that it may mean.

    mask_logits: (B, P, K, h, w).
    target_masks: list of B (M_b, H, W) bool, or their `covered_share` (M_b, h, w).
    inside: list of B (P, M_b) bool: the targets of a prompt, for a point those that contain it.
    wanted: (B, P) int64, the target that a prompt was drawn for, -1 for none; only "best-of-k" asks.
    matching: "many-to-many", "one-to-one" or "best-of-k", see `ovs_lite.matching.prompts`. positive: of the first.
    A pair costs 2 BCE + 1 - Dice over all pixels at the predictions' size, targets as the share of each pixel (the
    released settings name 6000 sampled points). For an IoU a pixel lies in a target that covers more than half of what
    it covers of its fullest pixel, so that no target is empty. Raises ValueError for an unknown matching.
    """
    if matching not in MATCHINGS:
        raise ValueError(f"got matching={matching!r}, expected one of {', '.join(MATCHINGS)}")
    size, shape = mask_logits.shape[-2:], mask_logits.shape[:3]
    shares = [masks if masks.shape[-2:] == size else covered_share(masks, size) for masks in target_masks]
    flat = at_least_float32(mask_logits).flatten(1, 2).flatten(2)  # (B, P K, h w)
    padded = pad_sequence(shares, batch_first=True).to(flat).flatten(2)  # (B, M, h w)
    own = pad_sequence([some.T for some in inside], batch_first=True).mT  # (B, P, M), False for what was added
    filled = padded > padded.amax(2, keepdim=True) / 2
    iou = pairwise_iou(flat > 0, filled).unflatten(1, shape[1:])  # (B, P, K, M)
    cost = COSTS["bce"] * pairwise_focal(flat, padded, **CROSS_ENTROPY)
    cost = cost - COSTS["dice"] * pairwise_dice(flat.sigmoid(), padded, smooth=1.0)
    found = (cost.unflatten(1, shape[1:]), iou, own, wanted)
    matched = _matched(*(some.flatten(0, 1) for some in found), matching, positive).unflatten(0, shape[:2])
    quality = iou * own[:, :, None]
    best = quality.amax(3) if quality.shape[3] else quality.new_zeros(shape)
    return PromptMatches(matched.nonzero(), best, own.any(2))


def prompted_mask_losses(
    mask_logits: torch.Tensor,
    target_masks: Sequence[torch.Tensor],
    pairs: torch.Tensor,
    count: float | None = None,
    num_points: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """{"bce", "dice"} of the matched pairs, unweighted: each a sum over pairs, divided by `count` (default their
    number).

    Uni-OVSeg, Eq. 4, whose two weights the caller applies. No pairs: 0 with gradient 0.
    mask_logits: (B, P, K, h, w).
    target_masks: list of B (M_b, H, W) bool.
    pairs: (R, 4) of `PromptMatches`.
    num_points: compare at that many uncertain points per pair, drawn with `generator`: logits bilinearly, targets at
        their own pixels. None: all pixels at the predictions' size, with the share of each that a target covers.
    """
    image, prompt, prediction, target = pairs.T
    logits = at_least_float32(mask_logits[image, prompt, prediction])  # (R, h, w)
    sizes = torch.tensor([0, *map(len, target_masks)], device=pairs.device).cumsum(0)
    masks, chosen = torch.cat(list(target_masks)).to(pairs.device), target + sizes[image]
    if num_points is None or not len(pairs):
        logits, targets = logits.flatten(1), covered_share(masks, logits.shape[-2:])[chosen].flatten(1)
    else:
        points = uncertain_points(logits.detach(), num_points, generator=generator)
        logits, targets = sample_points(logits, points), pixels_at_points(masks, chosen, points)
    bce = focal_loss(logits, targets, **CROSS_ENTROPY, count=count)
    return {"bce": bce, "dice": dice_loss(logits, targets, count=count)}


def quality_loss(
    quality_logits: torch.Tensor, quality: torch.Tensor, chosen: torch.Tensor, count: float | None = None
) -> torch.Tensor:
    """Squared error of the predicted IoU, over the predictions that count: their mean, or their sum over `count`.

    SAM, section 3 and appendix A ("mean-square-error loss between the IoU prediction and the predicted mask's IoU").
    Uni-OVSeg's released settings have such a term, its Eq. 4 has none.
    quality_logits: (B, P, K), whose sigmoid is the predicted IoU. quality: (B, P, K) in [0, 1]. chosen: (B, P, K) bool.
    None chosen: 0 with gradient 0.
    """
    errors = (at_least_float32(quality_logits[chosen]).sigmoid() - quality[chosen]).square()
    return errors.sum() / (max(1, len(errors)) if count is None else count)


def _matched(
    cost: torch.Tensor, iou: torch.Tensor, own: torch.Tensor, wanted: torch.Tensor, matching: str, positive: float
) -> torch.Tensor:
    if matching == "best-of-k":
        return best_of_k(cost, wanted)
    return one_to_one(cost, own) if matching == "one-to-one" else many_to_many(cost, iou, own, positive)
