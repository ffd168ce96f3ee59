"""Masks of an image and the entities of its caption, one to one. N masks, E entities, S input scales."""

from collections.abc import Sequence

import torch

from ovs_lite.matching.assignment import hungarian
from ovs_lite.tensors import at_least_float32


def match_masks_to_entities(
    costs_per_scale: Sequence[torch.Tensor], threshold: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Confident pairs of a mask and an entity: S costs (N, E), negative cosines -> (rows, cols), both (P,) int64.

    Uni-OVSeg (Wang et al., 2024), section 3.3, Eq. 6 and 7: one cost for each input scale, their mean over the scales,
    bipartite matching. P <= min(N, E): mask rows[p] is matched to entity cols[p]; rows ascend, and no row or column
    comes twice. Both are empty where N or E is 0.
    threshold: the least cosine, averaged over the scales, of a pair; one that has less is dropped after the matching,
        so it takes its mask from no other entity than the matching did. None: all pairs. The paper speaks of "confident
        pairs" and gives no value.
    The answer lies on the costs' device and carries no gradient. Raises ValueError for no scale, for costs that are no
    matrices of one shape, for NaN or infinity, and for a threshold that is no number.
    """
    shapes = [tuple(cost.shape) for cost in costs_per_scale]
    if not shapes or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"got costs of shapes {shapes}, expected one (N, E) for each scale, and at least one scale")
    if threshold is not None and threshold != threshold:
        raise ValueError(f"got threshold={threshold}, expected a cosine or None")
    mean = torch.stack([at_least_float32(cost.detach()) for cost in costs_per_scale]).mean(0)
    rows, cols = hungarian(mean)
    if threshold is not None:
        kept = -mean[rows, cols] >= threshold
        rows, cols = rows[kept], cols[kept]
    return rows, cols
