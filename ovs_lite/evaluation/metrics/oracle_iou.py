"""The overlap that an oracle reaches which picks, for every target, the best of many masks.

Uni-OVSeg (Wang et al., 2024), section 4.1 and appendix B. N masks, M targets, K masks for a prompt, H W pixels; masks
are bool or soft, a pixel belongs to one where its value exceeds 0.5.
"""

from collections.abc import Iterable

import torch

from ovs_lite.matching import exact_iou
from ovs_lite.regions.classifiers import inside

VALUES_AT_ONCE = 1 << 23  # of masks that are compared together


def best_of_all(masks: Iterable[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """The best IoU that each target has with any mask: parts of (N, H, W), (M, H, W) -> (M,) float64 in [0, 1].

    masks: in parts of any length, so that never all need be held. Without a mask 0. Two empty masks have 0.
    Raises ValueError for masks of another size than the targets.
    """
    best = torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
    if not len(targets):
        return best
    wanted = inside(targets).flatten(1)
    room = max(1, VALUES_AT_ONCE // max(1, wanted.shape[1]))
    for some in (some for part in masks for some in part.split(room)):
        if some.ndim != 3 or some.shape[1:] != targets.shape[1:]:
            shapes = f"{tuple(some.shape)} and {tuple(targets.shape)}"
            raise ValueError(f"got masks and targets of shapes {shapes}, expected (N, H, W) and (M, H, W)")
        if len(some):
            best = torch.maximum(best, exact_iou(inside(some).flatten(1).to(wanted.device), wanted).amax(0))
    return best


def best_of_own(masks: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The best IoU that each target has with one of its own K masks: (M, K, H, W), (M, H, W) -> (M,) float64 in [0, 1].

    Two empty masks have 0. Raises ValueError for shapes that do not fit.
    """
    if masks.ndim != 4 or masks.shape[:1] + masks.shape[2:] != targets.shape:
        shapes = f"{tuple(masks.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"got masks and targets of shapes {shapes}, expected (M, K, H, W) and (M, H, W)")
    if not masks.shape[1]:
        return torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
    first, second = inside(masks).flatten(2), inside(targets.to(masks.device)).flatten(1)[:, None]
    overlap, union = ((first & second).sum(2), (first | second).sum(2))
    return (overlap.double() / union.clamp(min=1)).max(1).values.to(targets.device)
