"""Exercises of notebook 05: prompts for blank patches, the ensemble and its weight, and what a caption can teach.

n patches, N regions, K classes, D width of a token.
"""

import math
from typing import Any

import torch

from ovs_lite.data.captions import extract_words
from ovs_lite.data.tagging import load_tagger
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.exercises.judging import BUG_HUNT, FILL_IN, OWN, TWEAK, compare, exercise, number_of, numbers, require

# Four regions; of each the right class comes first. By MaskFormer, and by CLIP: two seen classes, two unseen ones.
REGIONS = (
    ("seen, CLIP confuses it", (0.90, 0.10), (0.30, 0.40)),
    ("seen, CLIP confuses it more", (0.80, 0.15), (0.30, 0.50)),
    ("unseen, MaskFormer guesses", (0.20, 0.60), (0.80, 0.10)),
    ("unseen, MaskFormer is sure and wrong", (0.10, 0.50), (0.60, 0.20)),
)


@exercise("05-1", FILL_IN, "OVSeg, section 3.3: T x M + P x (1 - M)")
def prompted_tokens(answer: Any) -> None:
    """answer(tokens (n, D), mask (S, S) bool, prompts (n, D), patch) -> (n, D)."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[0:2, 2:4] = True
    hint = "patches are numbered row by row; the region keeps its token, a blank one gets the prompt of its place"
    given = numbers(0, 9, 4), mask, numbers(1, 9, 4), 2
    compare("the second of nine patches is the region", answer, _prompted, *given, hint=hint)
    thin = torch.zeros(6, 6, dtype=torch.bool)
    thin[5, 0] = True
    hint = "a patch with one pixel of the region is not blank"
    compare("one pixel in the last row", answer, _prompted, numbers(2, 9, 4), thin, numbers(3, 9, 4), 2, hint=hint)
    compare("a random region", answer, _prompted, numbers(4, 4, 3), numbers(5, 8, 8) > 1.5, numbers(6, 4, 3), 4)


def _prompted(tokens, mask, prompts, patch) -> torch.Tensor:
    side, rows = mask.shape[1] // patch, []
    for place in range(len(tokens)):
        top, left = patch * (place // side), patch * (place % side)
        kept = any(mask[y, x] for y in range(top, top + patch) for x in range(left, left + patch))
        rows.append(tokens[place] if kept else prompts[place])
    return torch.stack(rows)


@exercise("05-2", TWEAK, "OVSeg, section 3.1 and A.5 (the ensemble)")
def ensemble_weight(answer: Any) -> None:
    """answer: a weight of CLIP at which all four of REGIONS are named right."""
    weight = number_of("the weight", answer)
    require("the weight", 0 <= weight <= 1, "0 (MaskFormer alone) to 1 (CLIP alone)", weight)
    hint = "a geometric mean lets the surer of the two decide, and the weight says how sure it must be"
    for name, by_maskformer, by_clip in REGIONS:
        right, wrong = (a ** (1 - weight) * b**weight for a, b in zip(by_maskformer, by_clip, strict=True))
        case = f"{name}, weight {weight:g}"
        require(case, right > wrong, "its own class first", f"{right:.3f} for it, {wrong:.3f} for another", hint)


# Wrong on purpose: a bug hunt.
def ensemble(logits, cosines, weight):
    """OVSeg, section 3.1: p_maskformer^(1 - weight) p_clip^weight of each region and class, not normalised.

    logits: (N, K + 1) of MaskFormer, "no object" last. cosines: (N, K) of CLIP, whose scale is 100.
    """
    by_maskformer = logits.softmax(1)[:, :-1]
    by_clip = (100 * cosines).softmax(1)
    return by_maskformer**weight * by_clip ** (1 - weight)


@exercise("05-3", BUG_HUNT, "OVSeg, section 3.1 and A.5 (the ensemble)", bug=ensemble)
def whose_weight(answer: Any) -> None:
    """answer(logits (N, K + 1), cosines (N, K), weight of CLIP) -> (N, K)."""
    given = numbers(0, 2, 4), 0.02 * numbers(1, 2, 3)
    hint = "Table 6's column CLIP is weight 1, its column MaskFormer weight 0"
    compare("weight 1: CLIP alone", answer, _ensemble, *given, 1.0, hint=hint)
    compare("weight 0: MaskFormer alone", answer, _ensemble, *given, 0.0, hint=hint)
    compare("weight 0.7", answer, _ensemble, *given, 0.7)


def _ensemble(logits, cosines, weight) -> torch.Tensor:
    rows = []
    for some, near in zip(logits.tolist(), cosines.tolist(), strict=True):
        whole, all_near = sum(map(math.exp, some)), sum(math.exp(100 * c) for c in near)
        pairs = zip(some, near, strict=False)  # "no object" has no partner
        rows.append(
            [(math.exp(a) / whole) ** (1 - weight) * (math.exp(100 * c) / all_near) ** weight for a, c in pairs]
        )
    return torch.tensor(rows)


@exercise("05-4", OWN, "OVSeg, section 3.2 and Table 2 (pairs from captions)")
def caption_to_mine(answer: Any) -> None:
    """answer: a caption with four nouns or more, of which some are classes of icon-coco and two or more are none."""
    require("the caption", isinstance(answer, str), "a text", type(answer).__name__)
    classes = set(load_vocabulary("icon-coco").names)
    nouns = extract_words(answer, ("noun",), sorted(classes), load_tagger("shipped"))
    require("nouns of the caption", len(nouns) >= 4, "four or more", f"{len(nouns)}: {', '.join(nouns)}")
    known = [noun for noun in nouns if noun in classes]
    require("nouns that are classes of icon-coco", known, "one or more", f"none of {', '.join(nouns)}")
    new = [noun for noun in nouns if noun not in classes]
    hint = "these are what classes alone never teach, and what no ground-truth mask of icon-coco can be paired with"
    require("nouns that nobody annotated", len(new) >= 2, "two or more", f"{len(new)}: {', '.join(new)}", hint)
