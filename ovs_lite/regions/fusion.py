"""From regions with class probabilities to one label per pixel.

N regions, K classes, H W pixels.
"""

import torch

PIXELS_AT_ONCE = 1 << 13


def label_map(masks: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """The class of each pixel: argmax over k of sum_n probs[n, k] masks[n] (MaskFormer; OVSeg, section 3.1).

    masks: (N, H, W), bool or soft in [0, 1].
    probs: (N, K) in [0, 1]; MaskFormer's without the column of "no object", so that rows may sum to less than 1.
    Returns (H, W) int64: overlapping regions vote, ties go to the lower class id, and -1 where all votes are 0. A soft
    mask from a sigmoid votes everywhere. Chunked over pixels, so K * H * W is never held at once.
    """
    height, width = masks.shape[1:]
    flat = masks.flatten(1).T  # (H * W, N)
    labels = torch.full((height * width,), -1, dtype=torch.int64, device=masks.device)
    for start in range(0, height * width if len(masks) else 0, PIXELS_AT_ONCE):
        best, index = (flat[start : start + PIXELS_AT_ONCE].to(probs.dtype) @ probs).max(1)
        labels[start : start + PIXELS_AT_ONCE] = torch.where(best > 0, index, -1)
    return labels.view(height, width)
