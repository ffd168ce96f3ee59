"""Naming regions: CLIP on masked crops or unmasked ones, CLIP's pooled dense features, a dense map's votes, an oracle.

N regions, K classes, D embedding, H W pixels, h w patches. Images are (3, H, W) normalised. Masks are (N, H, W), bool
or soft in [0, 1]. Crops and the oracle need to know which pixels are inside and take those where a soft mask exceeds
0.5; pooling weights each pixel by its soft mask.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import encode_regions, masked_crops
from ovs_lite.clip.dense import patch_stride

CLIP_CLASSIFIERS = ("masked crops", "unmasked crops", "pooled features")
CROPS_AT_ONCE = 128
DENSE_SCALE = 2  # dense features are taken at twice CLIP's own side, as 448 is to 224
LONGEST = 4


def inside(masks: torch.Tensor) -> torch.Tensor:
    """The pixels of each region, bool: soft masks are cut at 0.5, bool ones are returned as they are."""
    return masks if masks.dtype == torch.bool else masks > 0.5


def region_scores(
    classifier: str, clip: Clip, image: torch.Tensor, masks: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Cosine of every region with every class, (N, K).

    classifier: "masked crops": the tight box, background 0 after normalisation, warped to CLIP's side (OVSeg, section
        3.1). "unmasked crops": the same boxes with their background (OVSeg, A.1). "pooled features": see
        `pooled_features`.
    image: (3, H, W) normalised.
    masks: (N, H, W), bool or soft.
    text: (K, D), L2-normalised.
    Raises ValueError for another classifier.
    """
    if classifier not in CLIP_CLASSIFIERS:
        raise ValueError(f"got classifier {classifier!r}, expected one of {', '.join(CLIP_CLASSIFIERS)}")
    if len(masks) == 0:
        return text.new_zeros(0, len(text))
    if classifier == "pooled features":
        return pooled_features(clip, image, masks) @ text.T
    return encode_regions(clip, image, inside(masks), masked=classifier == "masked crops") @ text.T


def pooled_features(
    clip: Clip, image: torch.Tensor, masks: torch.Tensor, short_side: int | None = None
) -> torch.Tensor:
    """MaskCLIP's dense embeddings averaged under each mask, (N, D), L2-normalised; zeros for a mask of zeros.

    A patch counts by the mean of the mask over it: OpenSeg's sum of s F_z, whose length does not matter. The image is
    resized, keeping its shape up to LONGEST : 1. short_side: in pixels, rounded to whole patches; default twice CLIP's
    own side.
    """
    patch, short = patch_stride(clip.network.visual)[0], short_side or DENSE_SCALE * clip.image_size
    wanted = [short * side / min(image.shape[1:]) for side in image.shape[1:]]
    size = [max(1, round(min(side, LONGEST * short) / patch)) * patch for side in wanted]
    resized = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)
    dense = clip.dense(resized)[0]  # (D, h, w)
    weights = F.interpolate(masks[None].float(), dense.shape[1:], mode="area")[0].flatten(1)  # (N, h * w)
    return F.normalize(weights @ dense.flatten(1).T, dim=-1)


def class_counts(target: np.ndarray, masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels of each class in each region: (H, W) class ids, (N, H, W) -> (N, K) int64; other ids are left out."""
    labelled = (target >= 0) & (target < num_classes)
    counts = [np.bincount(target[mask & labelled], minlength=num_classes) for mask in inside(masks).cpu().numpy()]
    return torch.from_numpy(np.array(counts, np.int64).reshape(-1, num_classes)).to(masks.device)


def oracle_probs(counts: torch.Tensor, by_purity: bool = False) -> torch.Tensor:
    """The oracle's answer: 1 for the class with most pixels in the region (OVSeg, section 1), (N, K) -> (N, K).

    counts: pixels of each class in each region, from `class_counts`. A region without labelled pixels gets all 0; ties
    go to the lower class id.
    by_purity: a region votes with its class's share of the labelled pixels instead of 1, so that where regions overlap
        the purer one wins; elsewhere it changes nothing. OVSeg leaves open how its overlapping proposals vote. The
        plain vote is the default: it is MaskFormer's fusion with the oracle's certainty as distribution.
    """
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    best = share.argmax(1, keepdim=True)
    vote = share.gather(1, best)
    return torch.zeros_like(share).scatter(1, best, vote if by_purity else (vote > 0).to(vote.dtype))


def majority_vote(labels: np.ndarray, masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Map correction: every region gets the class that most of its pixels have in a dense method's map. -> (N, K).

    What CorrCLIP (Zhang et al., ICCV 2025) does last; `oracle_probs` with the method's map in the ground truth's place.
    labels: (H, W) class ids; pixels with another number, such as -1, do not vote. A region without a voter gets all 0;
    ties go to the lower class id. masks: (N, H, W), bool or soft, cut at 0.5. Departure: pixels of no region get no
    class when such regions are fused, as with every other classifier, where a correction would leave them as they are.
    """
    return oracle_probs(class_counts(labels, masks, num_classes))


def blank_fraction(clip: Clip, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of patches of each masked crop that are exactly blank, (N,): OVSeg's "zero tokens".

    A crop is resized bicubically, which spreads up to two pixels beyond the region; patches that only see such an edge
    do not count as blank.
    """
    if len(masks) == 0:
        return image.new_zeros(0)
    patch = patch_stride(clip.network.visual)[0]
    ones = torch.ones_like(image[:, :1, :1]).expand(-1, *image.shape[1:])
    parts = inside(masks).split(CROPS_AT_ONCE)
    crops = torch.cat([masked_crops(ones, some, clip.image_size, masked=True) for some in parts])
    covered = F.max_pool2d(crops.abs().amax(1, keepdim=True), patch)
    return (covered == 0).float().mean((1, 2, 3))
