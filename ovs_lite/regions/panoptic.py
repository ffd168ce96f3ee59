"""From masks with class probabilities to segments that share no pixel.

The rules of Mask2Former (Cheng et al., CVPR 2022) and FC-CLIP (Yu et al., NeurIPS 2023) as they released them;
Uni-OVSeg releases no inference of classes, only two thresholds in its configuration. A semantic map of the same masks:
`regions/fusion.py`. N masks, K classes, S segments, H W pixels; masks are (N, H, W), bool or soft in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import torch

from ovs_lite.data.segments import describe_segment
from ovs_lite.regions.fusion import PIXELS_AT_ONCE

UNI_OVSEG = {"object_threshold": 0.7, "overlap_threshold": 0.4}  # of its released configuration


def panoptic_segments(
    masks: torch.Tensor,
    probs: torch.Tensor,
    is_thing: Sequence[bool],
    *,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """A segment id for every pixel, and what each segment is: (H, W) int64, 0 = void, and S entries of `segments_info`.

    probs: (N, K) in [0, 1], or (N, K + 1), the last column then "no object". A mask's class is the most probable, its
        score that probability; multiply by a predicted quality of the mask where there is one.
    is_thing: K flags. Masks of the same stuff class become one segment.
    object_threshold: masks with a score not above it are dropped, and those that are no object most of all.
    overlap_threshold: a pixel goes to the mask with the greatest score * value; a mask is dropped where its share of
        such pixels, relative to its own pixels, is below this. Its segment is where it won with a value >= 0.5.
    A pixel where all masks are 0 goes to none (a sigmoid never is). Ids are 1..S in the order of the masks. Chunked
    over pixels: beside the masks only N * PIXELS_AT_ONCE values are held. Raises ValueError for shapes that do not fit.
    """
    scores, classes = _scored(masks, probs, is_thing)
    kept = ((scores > object_threshold) & (classes < len(is_thing))).nonzero()[:, 0]
    classes = classes[kept].tolist()
    owner, value, own = _winners(masks.flatten(1), kept, scores[kept])
    inside = value >= 0.5
    won, solid = (torch.bincount(some + 1, minlength=len(kept) + 1)[1:].tolist() for some in (owner, owner[inside]))
    accepted = [s > 0 and w / o >= overlap_threshold for s, w, o in zip(solid, won, own.tolist(), strict=True)]
    numbers, categories, stuff = [0] * (len(kept) + 1), [], {}  # the last number is for owner -1
    for index, category in enumerate(classes):
        if accepted[index] and category not in stuff:
            categories.append(category)
            if not is_thing[category]:
                stuff[category] = len(categories)
        if accepted[index]:
            numbers[index] = stuff.get(category, len(categories))
    ids = torch.where(inside, torch.tensor(numbers, device=owner.device)[owner], 0).view(masks.shape[1:])
    found = ids.cpu().numpy()
    infos = [
        describe_segment(found == number, number, category, is_thing[category], False)
        for number, category in enumerate(categories, 1)
    ]
    return ids, infos


def _scored(masks: torch.Tensor, probs: torch.Tensor, is_thing: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) scores and (N,) classes, K standing for "no object"."""
    classes = len(is_thing)
    fits = masks.ndim == 3 and probs.ndim == 2 and len(probs) == len(masks)
    if not fits or not classes or probs.shape[1] not in (classes, classes + 1):
        given = f"masks {tuple(masks.shape)} and probs {tuple(probs.shape)} of {classes} classes"
        raise ValueError(f"got {given}, expected (N, H, W) and (N, K) or (N, K + 1) of K >= 1 classes")
    return probs.max(1)


def _winners(
    flat: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of the kept masks each pixel goes to, -1 for none; that mask's value there; and each one's pixels >= 0.5.

    flat: (N, H * W). kept, scores: (n,) of them. Returns (H * W,) int64, (H * W,) and (n,) int64. Ties go to the
    earlier mask.
    """
    pixels = flat.shape[1]
    owner = torch.full((pixels,), -1, device=flat.device)
    value, own = scores.new_zeros(pixels), torch.zeros_like(kept)
    for start in range(0, pixels if len(kept) else 0, PIXELS_AT_ONCE):
        chunk = slice(start, start + PIXELS_AT_ONCE)
        some = flat[:, chunk][kept].to(scores.dtype)
        best, index = (scores[:, None] * some).max(0)
        owner[chunk] = torch.where(best > 0, index, -1)
        value[chunk] = torch.where(best > 0, some.gather(0, index[None])[0], 0)
        own += (some >= 0.5).sum(1)
    return owner, value, own
