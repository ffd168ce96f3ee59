"""One embedding per mask, from the embeddings of the pixels under it.

B images, N masks, D embedding, h w places.
"""

import torch

from ovs_lite.tensors import at_least_float32

POOLINGS = ("sum", "hard")


def mask_pool(pixels: torch.Tensor, masks: torch.Tensor, pooling: str = "sum") -> torch.Tensor:
    """(B, D, h, w) embeddings, (B, N, h, w) masks in [0, 1] -> (B, N, D), not normalised; 0 for a mask of zeros.

    pooling: "sum", OpenSeg (section 3.2): z[n, d] = sum_ij s[n, i, j] F_z[d, i, j], differentiable in both. "hard": the
        mean where s > 0.5, as summaries of the paper have it: half-sure pixels have no say, and masks no gradient.
    Who compares z by cosine sees no difference between a sum and a mean, only between soft and hard.
    Raises ValueError for another pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"got pooling={pooling!r}, expected one of {', '.join(POOLINGS)}")
    pixels, weights = at_least_float32(pixels).flatten(2), at_least_float32(masks).flatten(2)
    if pooling == "hard":
        weights = (weights > 0.5).to(pixels.dtype)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1)
    with torch.autocast(pixels.device.type, enabled=False):  # a sum over places may overflow half precision
        return weights.to(pixels.dtype) @ pixels.transpose(1, 2)
