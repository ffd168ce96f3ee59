"""Exercises of notebook 06: the cost of a mask and a word, confident pairs, panoptic quality, one click many masks.

N masks, E entities, D embedding, H W pixels.
"""

import math
from typing import Any

import numpy as np
import torch

from ovs_lite.exercises.judging import (
    BUG_HUNT,
    FILL_IN,
    OWN,
    TWEAK,
    compare,
    exercise,
    number_of,
    numbers,
    pair_of,
    require,
)

RIGHT_PAIRS = (0.31, 0.29, 0.28, 0.26, 0.25, 0.24, 0.22, 0.17)  # cosines of pairs that are right, and of wrong ones
WRONG_PAIRS = (0.27, 0.21, 0.19, 0.16, 0.14, 0.12, 0.08, 0.05)
WANTED = 0.85
POSITIVE, SMALLEST = 0.7, 9


@exercise("06-1", FILL_IN, "Uni-OVSeg Eq. 6 and 7")
def matching_cost(answer: Any) -> None:
    """answer(regions (S, N, D) of S input sizes, words (E, D)) -> (N, E)."""
    compare("two sizes, four masks, three words", answer, _cost, numbers(0, 2, 4, 5), numbers(1, 3, 5))
    louder = numbers(0, 2, 4, 5)
    louder[1] *= 50
    hint = "average cosines, not embeddings: each size has one vote, however long its vectors are"
    compare("the second size has vectors 50 times as long", answer, _cost, louder, numbers(1, 3, 5), hint=hint)
    same = torch.eye(3)[None]
    hint = "least cost is best, so what fits perfectly costs -1"
    compare("each mask is one of the words", answer, _cost, same, torch.eye(3), hint=hint)


def _cost(regions, words) -> torch.Tensor:
    table = torch.zeros(regions.shape[1], len(words))
    for size in regions.tolist():
        for n, z in enumerate(size):
            for e, w in enumerate(words.tolist()):
                lengths = math.sqrt(sum(a * a for a in z) * sum(b * b for b in w))
                table[n, e] -= sum(a * b for a, b in zip(z, w, strict=True)) / lengths / len(regions)
    return table


@exercise("06-2", TWEAK, "Uni-OVSeg, section 3.3 (confident pairs)")
def confident_pairs(answer: Any) -> None:
    """answer: the least cosine of a pair to keep, for a precision and a recall of 0.85 or more."""
    least = number_of("the threshold", answer)
    right, wrong = (sum(cosine >= least for cosine in pairs) for pairs in (RIGHT_PAIRS, WRONG_PAIRS))
    precision, recall = right / max(1, right + wrong), right / len(RIGHT_PAIRS)
    hint = "a matching gives every word a mask, wanted or not; lower keeps lies, higher drops truths"
    got = f"precision {precision:.2f}, recall {recall:.2f}"
    case = f"pairs of a cosine of {least:g} or more"
    require(case, min(precision, recall) >= WANTED, f"both {WANTED} or more", got, hint)


# Wrong on purpose: a bug hunt.
def panoptic_quality(found, truth):
    """PQ of one class: the IoU of the segments found, over TP + FP / 2 + FN / 2. Found: an IoU above 0.5.

    found: (P, H, W) bool, truth: (T, H, W) bool; segments of a picture do not overlap.
    """
    p, t = found.flatten(1).float(), truth.flatten(1).float()
    both = p @ t.T
    iou = both / (p.sum(1)[:, None] + t.sum(1) + both)
    hits = iou > 0.5
    true = hits.sum()
    return iou[hits].sum() / (true + (len(p) - true) / 2 + (len(t) - true) / 2)


@exercise("06-3", BUG_HUNT, "Kirillov et al., CVPR 2019, Eq. 1 (Uni-OVSeg, Table 2)", bug=panoptic_quality)
def quality(answer: Any) -> None:
    """answer(found (P, H, W) bool, truth (T, H, W) bool) -> scalar in [0, 1]."""
    rows = torch.arange(6)[:, None].expand(6, 6)
    truth = torch.stack([rows < 2, (rows >= 2) & (rows < 5)])
    hint = "what is in both segments is counted once in their union"
    compare("both segments are found, pixel by pixel", answer, _quality, truth, truth, hint=hint)
    nearly = torch.stack([rows < 2, (rows >= 3) & (rows < 5)])
    compare("the second one lacks a row", answer, _quality, nearly, truth, hint=hint)
    compare("a segment too many", answer, _quality, torch.cat([truth, (rows == 5)[None]]), truth)
    compare("a segment is missed", answer, _quality, truth[:1], truth)


def _quality(found, truth) -> float:
    segments = [[set(map(tuple, np.argwhere(mask.numpy()).tolist())) for mask in some] for some in (found, truth)]
    ious = [len(a & b) / len(a | b) for a in segments[0] for b in segments[1]]
    hits = [iou for iou in ious if iou > 0.5]
    return sum(hits) / (len(hits) + (len(found) - len(hits)) / 2 + (len(truth) - len(hits)) / 2)


@exercise("06-4", OWN, "Uni-OVSeg Eq. 2 (granularities of one point)")
def one_click_three_masks(answer: Any) -> None:
    """answer: (point (x, y), masks (3, H, W) bool): a part, a thing and a group, each within the next."""
    point, masks = pair_of("the answer", answer, "(point, masks)")
    x, y = map(int, pair_of("the point", point, "(x, y)"))
    masks = np.asarray(masks).astype(bool)
    require("the masks", masks.ndim == 3 and len(masks) == 3, "(3, H, W)", str(masks.shape))
    require("the smallest mask", masks[0].sum() >= SMALLEST, f"{SMALLEST} pixels or more", int(masks[0].sum()))
    inside = 0 <= y < masks.shape[1] and 0 <= x < masks.shape[2]
    require("the point", inside, f"x below {masks.shape[2]}, y below {masks.shape[1]}", (x, y))
    at = [bool(mask[y, x]) for mask in masks]
    require(f"the point {x, y} in each mask", all(at), "[True, True, True]", at, "masks are indexed [y, x]")
    for small, large, names in ((0, 1, "part in thing"), (1, 2, "thing in group")):
        outside = int((masks[small] & ~masks[large]).sum())
        require(names, outside == 0, "each within the next", f"{outside} pixels stand out")
        iou = float(masks[small].sum() / masks[large].sum())
        hint = "above it one prediction would learn both masks, and the click is not ambiguous"
        require(f"IoU of {names}", iou < POSITIVE, f"below {POSITIVE}", f"{iou:.2f}", hint)
