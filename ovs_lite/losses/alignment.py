"""Uni-OVSeg's alignment of regions and entities that were matched. P pairs, U distinct texts, D joint embedding."""

import torch
import torch.nn.functional as F

from ovs_lite.tensors import at_least_float32, nothing_learned


def cosine_alignment_loss(regions: torch.Tensor, texts: torch.Tensor, count: float | None = None) -> torch.Tensor:
    """Uni-OVSeg (Wang et al., 2024), Eq. 8: the mean over matched pairs of 1 - cos(region, text), a scalar in [0, 2].

    regions: (P, D), of any length; a row of zeros has cosine 0 with everything. texts: (P, D), row p's entity.
    count: what the sum is divided by instead of P, such as a P averaged over processes; 0 pairs are 0 with gradients of
        0, whatever the count.
    Computed in float32 or wider. Raises ValueError for shapes that do not fit.
    """
    if regions.ndim != 2 or regions.shape != texts.shape:
        given = f"{tuple(regions.shape)} and {tuple(texts.shape)}"
        raise ValueError(f"got regions and texts of shapes {given}, expected (P, D) twice")
    cosines = F.cosine_similarity(at_least_float32(regions), at_least_float32(texts), dim=1)
    if not len(cosines):
        return nothing_learned(regions, texts)
    return (1 - cosines).sum() / (len(cosines) if count is None else count)


def contrastive_alignment_loss(
    regions: torch.Tensor, texts: torch.Tensor, which: torch.Tensor, scale: float, count: float | None = None
) -> torch.Tensor:
    """Departure from Uni-OVSeg's Eq. 8: each region is contrasted with all texts of a batch, a scalar >= 0.

    The mean over pairs of the cross-entropy of softmax_u(scale cos(region, text_u)) with the region's own text. Eq. 8
    only pulls: all regions may come near to the mean of all texts, where it is low and no class differs from another.
    regions: (P, D), of any length. texts: (U, D), distinct. which: (P,) int64, the text of each region. scale: factor
    of cosines, such as CLIP's. count: as in `cosine_alignment_loss`; so are no pairs and precision. Raises ValueError
    for shapes that do not fit.
    """
    if regions.ndim != 2 or texts.ndim != 2 or regions.shape[1] != texts.shape[1] or which.shape != regions.shape[:1]:
        given = f"{tuple(regions.shape)}, {tuple(texts.shape)} and {tuple(which.shape)}"
        raise ValueError(f"got regions, texts and which of shapes {given}, expected (P, D), (U, D) and (P,)")
    if not len(regions):
        return nothing_learned(regions, texts)
    with torch.autocast(regions.device.type, enabled=False):
        cosines = F.normalize(at_least_float32(regions), dim=1) @ F.normalize(at_least_float32(texts), dim=1).T
    return F.cross_entropy(scale * cosines, which, reduction="sum") / (len(regions) if count is None else count)
