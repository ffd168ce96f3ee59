"""Texts against a dense map: cosines of every place with every text, the masks that they draw, and a sample of these.

B images, T texts (K classes), C or D channels of the joint embedding, H W places.
"""

import torch
import torch.nn.functional as F

from ovs_lite.tensors import at_least_float32

EPS = 1e-6  # of TCL's released code, where it normalises or divides


def patch_cosines(patches: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """(B, D, h, w) un-normalised, (K, D) L2-normalised -> (B, K, h, w) cosines in [-1, 1]."""
    return torch.einsum("bdhw,kd->bkhw", F.normalize(patches, dim=1), text_embeddings)


def mask_logits(
    pixels: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float, bias: torch.Tensor | float
) -> torch.Tensor:
    """Logits of the text-grounded masks (TCL Eq. 5 without its sigmoid): scale * cos(pixel, text) + bias.

    pixels: (B, C, H, W), not normalised. texts: (T, C) for all pairs, or (B, T, C) for texts of each image's own, such
    as `texts[positives][:, None]`; L2-normalised. Returns (B, T, H, W). The released code starts from scale 10 and bias
    -2.5 (both learned) and normalises pixels with eps 1e-6.
    """
    directions = F.normalize(at_least_float32(pixels), dim=1, eps=EPS)
    with torch.autocast(pixels.device.type, enabled=False):
        cosines = texts.to(directions.dtype) @ directions.flatten(2)
    return (scale * cosines + bias).unflatten(2, pixels.shape[2:])


def binary_gumbel(
    logits: torch.Tensor, temperature: float = 1.0, hard: bool = True, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A differentiable sample of binary masks, for the masked image of TCL Eq. 6 ("Gumbel-Max" in the paper).

    The released code draws logistic noise, the difference of two Gumbel variables: soft = sigmoid((logits + log(u /
    (1 - u))) / temperature). hard: 1 where soft > 0.5, else 0, with the gradient of soft (straight through). Same shape
    and dtype as the logits; the noise is drawn in float32 or wider.
    """
    logits, dtype = at_least_float32(logits), logits.dtype
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    tiny = torch.finfo(logits.dtype).eps / 2
    soft = ((logits + uniform.clamp(tiny, 1 - tiny).logit()) / temperature).sigmoid()
    sample = (soft > 0.5) + (soft - soft.detach()) if hard else soft
    return sample.to(dtype)
