"""Exercises of notebook 01: masked crops, what an oracle makes of coarse regions, and whose softmax it is.

N regions, K classes, H W pixels.
"""

from typing import Any

import numpy as np
import torch

from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    Failed,
    compare,
    exercise,
    number_of,
    numbers,
    require,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIDE, WANTED_MIOU = 64, 80.0
PATCHES, WANTED_BLANK, LEAST_SHARE = 16, 0.6, 0.03


@exercise("01-1", FILL_IN, "OVSeg, section 3.1 (masked crops)")
def masked_box(answer: Any) -> None:
    """answer(pixels (3, H, W) in [0, 1], mask (H, W) bool, mean (3,), std (3,)) -> (3, h, w), before the resizing."""
    pixels, mean, std = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0)), *map(torch.tensor, (MEAN, STD))
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[1:3, 2:6], mask[3, 2] = True, True
    hint = "blank pixels must be 0 after the normalisation, which is the mean colour before it"
    compare("an L in the middle", answer, _masked_box, pixels, mask, mean, std, hint=hint)
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[5:, 7:] = True
    hint = "the last row and column belong to the box"
    compare("a region at the lower right edge", answer, _masked_box, pixels, mask, mean, std, hint=hint)
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[4, 0] = True
    compare("a region of one pixel", answer, _masked_box, pixels, mask, mean, std, hint=hint)


def _masked_box(pixels, mask, mean, std) -> torch.Tensor:
    places = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    top, left = min(y for y, _ in places), min(x for _, x in places)
    box = torch.zeros(3, max(y for y, _ in places) - top + 1, max(x for _, x in places) - left + 1)
    for y, x in places:
        for c in range(3):
            box[c, y - top, x - left] = (pixels[c, y, x] - mean[c]) / std[c]
    return box


@exercise("01-2", TWEAK, "OVSeg, Fig. 1c (the oracle)")
def coarse_regions(answer: Any) -> None:
    """answer: the side of the largest square regions whose oracle labels still reach 80 mIoU; it divides 64."""
    side = int(number_of("the side of a square", answer))
    sides = [s for s in range(1, SIDE + 1) if SIDE % s == 0]
    require("the side of a square", side in sides, f"one of {sides}", answer)
    reached = {s: 100 * _oracle_miou(scene_labels(), s) for s in sides}
    best = max(s for s in sides if reached[s] >= WANTED_MIOU)
    hint = "a square that straddles two classes loses the smaller one: thin things go first"
    case, got = f"the oracle's mIoU with squares of {side} pixels", f"{reached[side]:.1f}"
    require(case, side <= best, f"at least {WANTED_MIOU}", got, hint)
    require(
        case, side == best, f"the largest squares that reach {WANTED_MIOU}", f"{got}, and larger ones do, too", hint
    )


def scene_labels() -> np.ndarray:
    """Ground truth of 01-2, (64, 64): 0 the ground, 1 a disc of radius 18, 2 a bar of 6 x 44 pixels."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.where((rows - 31) ** 2 + (columns - 24) ** 2 <= 18**2, 1, 0)
    labels[10:54, 51:57] = 2
    return labels


def _oracle_miou(labels: np.ndarray, side: int) -> float:
    found = np.empty_like(labels)
    for y in range(0, SIDE, side):
        for x in range(0, SIDE, side):
            found[y : y + side, x : x + side] = np.bincount(labels[y : y + side, x : x + side].ravel()).argmax()
    ious = [((found == c) & (labels == c)).sum() / ((found == c) | (labels == c)).sum() for c in range(3)]
    return float(np.mean(ious))


# Wrong on purpose: a bug hunt.
def label_map(logits, masks):
    """OVSeg, section 3.1: each region's class probabilities go to its pixels; the largest sum is the label, -1: none.

    logits: (N, K), a row for each region. masks: (N, H, W) bool.
    """
    probs = logits.softmax(0)
    votes = torch.einsum("nk,nhw->khw", probs, masks.float())
    return torch.where(masks.any(0), votes.argmax(0), -1)


@exercise("01-3", BUG_HUNT, "OVSeg, section 3.1 (from regions to labels)", bug=label_map)
def whose_softmax(answer: Any) -> None:
    """answer(logits (N, K), masks (N, H, W) bool) -> (H, W) int64."""
    halves = torch.zeros(2, 2, 4, dtype=torch.bool)
    halves[0, :, :2], halves[1, :, 2:] = True, True
    logits = torch.tensor([[2.0, 1.0], [4.0, 0.0]])
    hint = "each region alone says class 0; no other region may change that where it lies alone"
    compare("two regions side by side, both surest of class 0", answer, _label_map, logits, halves, hint=hint)
    holes = numbers(1, 4, 5, 6) > 0.8
    compare("four regions that overlap, and pixels in none", answer, _label_map, 2 * numbers(2, 4, 3), holes)


def _label_map(logits, masks) -> torch.Tensor:
    labels = torch.full(masks.shape[1:], -1)
    probs = [np.exp(row) / np.exp(row).sum() for row in logits.double().numpy()]
    for y, x in np.ndindex(*masks.shape[1:]):
        votes = [p for p, mask in zip(probs, masks, strict=True) if mask[y, x]]
        if votes:
            labels[y, x] = int(sum(votes).argmax())
    return labels


@exercise("01-4", OWN, "OVSeg, section 3.3 (blank patches)")
def blank_patches(answer: Any) -> None:
    """answer: a mask (H, W) of 3 % of its picture at least, of whose crop 60 % of 16 x 16 patches are blank."""
    mask = np.asarray(answer)
    flat = mask.ndim == 2 and min(mask.shape, default=0) >= PATCHES
    require("the mask", flat, f"(H, W), {PATCHES} x {PATCHES} or more", f"{mask.dtype} {mask.shape}")
    mask, share = mask.astype(bool), float(mask.astype(bool).mean())
    require("the region's share of the picture", share >= LEAST_SHARE, f"at least {LEAST_SHARE:.0%}", f"{share:.1%}")
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if min(box.shape) < PATCHES:
        raise Failed("the region's box", f"{PATCHES} pixels or more on each side", f"{box.shape}")
    lines = np.array_split(box, PATCHES, axis=0)
    kept = [part.any() for line in lines for part in np.array_split(line, PATCHES, axis=1)]
    blank = 1 - float(np.mean(kept))
    hint = "what fills its box hardly has blank patches; what is long and slanted, or a ring, has many"
    require(
        "the crop's share of blank patches", blank >= WANTED_BLANK, f"at least {WANTED_BLANK:.0%}", f"{blank:.1%}", hint
    )
