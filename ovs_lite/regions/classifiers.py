"""Naming regions: CLIP on masked crops, CLIP on the same crops unmasked, CLIP's pooled dense features, or the truth.

N regions, K classes, D embedding, H W pixels, h w patches. Images are (3, H, W) normalised, masks (N, H, W) bool.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.crops import encode_regions, masked_crops
from ovs_lite.clip.dense import patch_stride
from ovs_lite.losses.contrastive import MAX_SCALE

CLIP_CLASSIFIERS = ("masked crops", "unmasked crops", "pooled features")
CROPS_AT_ONCE = 128
DENSE_SCALE = 2  # dense features are taken at twice CLIP's own side, as 448 is to 224
LONGEST = 4


def region_scores(
    classifier: str, clip: Clip, image: torch.Tensor, masks: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Cosine of every region with every class: (3, H, W), (N, H, W), text (K, D) normalised -> (N, K).

    "masked crops": the tight box, background 0 after normalisation, warped to CLIP's side (OVSeg section 3.1).
    "unmasked crops": the same boxes with their background (OVSeg A.1). "pooled features": mean of MaskCLIP's dense
    embeddings under the mask, whose patches count by the share of them that the mask covers.
    """
    if classifier not in CLIP_CLASSIFIERS:
        raise ValueError(f"got classifier {classifier!r}, expected one of {', '.join(CLIP_CLASSIFIERS)}")
    if len(masks) == 0:
        return text.new_zeros(0, len(text))
    if classifier == "pooled features":
        return pooled_features(clip, image, masks) @ text.T
    return encode_regions(clip, image, masks, masked=classifier == "masked crops") @ text.T


def pooled_features(clip: Clip, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Dense CLIP embeddings averaged under each mask, (N, D), L2-normalised.

    The picture is resized to a short side of twice CLIP's own, keeping its shape up to LONGEST : 1.
    """
    patch, short = patch_stride(clip.network.visual)[0], DENSE_SCALE * clip.image_size
    wanted = [short * side / min(image.shape[1:]) for side in image.shape[1:]]
    size = [max(1, round(min(side, LONGEST * short) / patch)) * patch for side in wanted]
    resized = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)
    dense = clip.dense(resized)[0]  # (D, h, w)
    weights = F.interpolate(masks[None].float(), dense.shape[1:], mode="area")[0]  # (N, h, w)
    pooled = weights.flatten(1) @ dense.flatten(1).T / weights.sum((1, 2))[:, None]
    return F.normalize(pooled, dim=-1)


def clip_probs(scores: torch.Tensor, clip: Clip) -> torch.Tensor:
    """(N, K) cosines -> probabilities: softmax with CLIP's own temperature."""
    return (scores * clip.logit_scale.exp().clamp(max=MAX_SCALE)).softmax(-1)


def class_counts(target: np.ndarray, masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Pixels of each class in each region: (H, W) class ids, (N, H, W) -> (N, K) int64, other values left out."""
    labelled = (target >= 0) & (target < num_classes)
    counts = [np.bincount(target[mask & labelled], minlength=num_classes) for mask in masks.cpu().numpy()]
    return torch.from_numpy(np.array(counts, np.int64).reshape(-1, num_classes)).to(masks.device)


def oracle_probs(counts: torch.Tensor) -> torch.Tensor:
    """The oracle's answer: the class with most pixels in the region, weighted by its share of the labelled ones.

    (N, K) pixel counts -> (N, K), all 0 for a region without labelled pixels. OVSeg (section 1) gives each region the
    label of the object it overlaps most. Where regions do not overlap the weight changes nothing; where they do, it
    lets the purer one win, which the paper leaves open. Ties go to the lower class id.
    """
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    best = share.argmax(1, keepdim=True)
    return torch.zeros_like(share).scatter(1, best, share.gather(1, best))


def blank_fraction(clip: Clip, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share of patches of each masked crop that hold no pixel of the region, (N,): OVSeg's "zero tokens"."""
    if len(masks) == 0:
        return image.new_zeros(0)
    patch = patch_stride(clip.network.visual)[0]
    ones = torch.ones_like(image[:, :1, :1]).expand(-1, *image.shape[1:])
    crops = torch.cat([masked_crops(ones, some, clip.image_size, masked=True) for some in masks.split(CROPS_AT_ONCE)])
    covered = F.max_pool2d(crops.abs().amax(1, keepdim=True), patch)
    return (covered == 0).float().mean((1, 2, 3))
