"""Exercises of notebook 02: the best-match loss, the weight of "no object", recall, and what grouping by colour misses.

N proposals, M targets, H W pixels.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    agree,
    ask,
    compare,
    exercise,
    number_of,
    numbers,
    pair_of,
    require,
)
from ovs_lite.regions.classical import FELZENSZWALB_SCALES, felzenszwalb_masks

QUERIES, MATCHED = 100, 2
LEAST_SHARE, LEAST_CONTRAST, FOUND = 0.1, 40.0, 0.5


@exercise("02-1", FILL_IN, "OpenSeg Eq. 1")
def best_match(answer: Any) -> None:
    """answer(proposals (N, H, W) in [0, 1], targets (M, H, W) in {0, 1}) -> scalar with a gradient."""
    proposals, targets = numbers(0, 5, 6, 6).sigmoid(), (numbers(1, 2, 6, 6) > 0.3).float()
    compare("five proposals, two targets", answer, _best_match, proposals, targets)
    twin = torch.cat([targets[:1], targets[:1]])
    hint = "Eq. 1 is no assignment: each target takes the maximum over all proposals"
    compare("two targets that want the same proposal", answer, _best_match, proposals, twin, hint=hint)
    learning = proposals.clone().requires_grad_()
    loss = torch.as_tensor(ask("the gradient", answer, learning, targets))
    require("the gradient", loss.requires_grad, "a loss with a gradient", "a number without one: stay in torch")
    (gradient,) = torch.autograd.grad(loss, learning)
    chosen = {max(range(5), key=lambda i: _dice(proposals[i], target)) for target in targets}
    learns = [i for i in range(5) if gradient[i].abs().sum() > 0]
    hint = "who was chosen by nobody is neither pulled nor pushed"
    require("which proposals get a gradient", learns == sorted(chosen), sorted(chosen), learns, hint)
    nobody = ask("a picture that nobody annotated", answer, proposals, targets[:0])
    agree("a picture that nobody annotated", nobody, 0.0, "no targets: the loss is 0, not NaN and no error")


def _dice(s: torch.Tensor, t: torch.Tensor) -> float:
    pairs = list(zip(s.flatten().tolist(), t.flatten().tolist(), strict=True))
    return 2 * sum(a * b for a, b in pairs) / (sum(a for a, _ in pairs) + sum(b for _, b in pairs))


def _best_match(proposals: torch.Tensor, targets: torch.Tensor) -> float:
    return sum(1 - max(_dice(s, t) for s in proposals) for t in targets) / len(targets)


@exercise("02-2", TWEAK, "MaskFormer Eq. 1 (OVSeg, section 3.1)")
def no_object_weight(answer: Any) -> None:
    """answer: the weight of "no object" at which 98 unmatched queries push as hard as 2 matched ones."""
    weight = number_of("the weight", answer)
    require("the weight", weight > 0, "a number above 0", weight)
    logits = torch.zeros(QUERIES, 3, requires_grad=True)  # two classes and "no object", nothing learned yet
    labels = torch.full((QUERIES,), 2)
    labels[:MATCHED] = 0
    F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 1.0, weight])).backward()
    push = -logits.grad[range(QUERIES), labels]
    ratio = float(push[MATCHED:].sum() / push[:MATCHED].sum())
    hint = "with weight 1 the many that found nothing drown the few that found something; MaskFormer takes 0.1"
    require(
        "push of the unmatched / push of the matched", abs(ratio - 1) <= 0.05, "1 within 0.05", f"{ratio:.3f}", hint
    )


# Wrong on purpose: a bug hunt.
def recall(proposals, targets, threshold):
    """OpenSeg, Table 1: the share of targets that some proposal overlaps with an IoU of `threshold` or more.

    proposals: (N, H, W) bool. targets: (M, H, W) bool.
    """
    p, t = proposals.flatten(1).float(), targets.flatten(1).float()
    both = p @ t.T
    iou = both / (p.sum(1)[:, None] + t.sum(1) - both)
    return (iou.max(1).values >= threshold).float().mean()


@exercise("02-3", BUG_HUNT, "OpenSeg, Table 1 (recall)", bug=recall)
def recall_of_targets(answer: Any) -> None:
    """answer(proposals (N, H, W) bool, targets (M, H, W) bool, threshold) -> scalar in [0, 1]."""
    one = torch.zeros(1, 6, 6, dtype=torch.bool)
    one[0, :3, :3] = True
    many = torch.cat([one, one.flip(1), one.flip(2), one.flip(1, 2)])
    hint = "wrong tries cost nothing: recall asks each target, not each proposal"
    compare("the only target is found, three proposals are elsewhere", answer, _recall, many, one, 0.5, hint=hint)
    compare("one of four targets is found", answer, _recall, one, many, 0.5)
    compare("random masks", answer, _recall, numbers(0, 6, 4, 4) > 0, numbers(1, 4, 4, 4) > 0, 0.4)


def _recall(proposals: torch.Tensor, targets: torch.Tensor, threshold: float) -> float:
    found = 0
    for target in targets:
        ious = [int((p & target).sum()) / int((p | target).sum()) for p in proposals]
        found += any(iou >= threshold for iou in ious)
    return found / len(targets)


@exercise("02-4", OWN, "OpenSeg, Table 1 (classical proposals)")
def what_colour_misses(answer: Any) -> None:
    """answer: (picture (H, W, 3) uint8, mask (H, W) bool) of a thing that grouping by colour breaks into parts."""
    picture, mask = map(np.asarray, pair_of("the answer", answer, "(picture, mask)"))
    fits = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and mask.shape == picture.shape[:2]
    given = f"{picture.dtype} {picture.shape} and {mask.shape}"
    require("picture and mask", fits and min(mask.shape) >= 32, "(H, W, 3) uint8 and (H, W), 32 pixels or more", given)
    mask = mask.astype(bool)
    require("the thing's share", LEAST_SHARE <= mask.mean() <= 0.6, "10 % to 60 %", f"{100 * mask.mean():.1f} %")
    ground = picture[~mask].astype(float).mean(0)
    contrast = np.abs(picture[mask] - ground).max(1).min()
    hint = "the thing must be easy to see: none of its pixels may have the colour of the ground"
    require("the least contrast", contrast >= LEAST_CONTRAST, f"{LEAST_CONTRAST:g} of 255", f"{contrast:.0f}", hint)
    regions = [region for scale in FELZENSZWALB_SCALES for region in felzenszwalb_masks(picture, scale)]
    best = max(float((region & mask).sum() / (region | mask).sum()) for region in regions)
    hint = "what unites a thing's colours for you, and does graph segmentation know it?"
    require("the best IoU of graph segmentation", best < FOUND, f"below {FOUND}", f"{best:.2f}", hint)
