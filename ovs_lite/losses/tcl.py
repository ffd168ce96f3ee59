"""Losses of TCL (Cha et al., CVPR 2023, section 3.3): texts that ground themselves in pixels.

B images, T texts (of all processes, where there are several), C channels, H W pixels. Everything is computed as the
released code does; where the paper differs, the docstring says so. Half precision is summed as float32, under autocast
too; float64 stays. InfoNCE (Eq. 7), which makes Eq. 6 and 9 of the similarities, is in `contrastive`.
Every mean is over the local images, so averaged gradients of several processes are those of the whole batch except for
the absolute value in Eq. 10: its areas have to be gathered first (in the released code each process has its own).
"""

from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from ovs_lite.losses.tcl_blocks import GroundedPooling
from ovs_lite.models.text_masks import binary_gumbel, mask_logits
from ovs_lite.tensors import at_least_float32

__all__ = [
    "GroundingTerms", "area_loss", "binary_gumbel", "feature_similarity", "mask_logits", "text_grounding_terms",
    "tv_loss",
]  # fmt: skip


class GroundingTerms(NamedTuple):
    """What the losses of Eq. 9, 10 and 11 need of all B x T masks, from `text_grounding_terms`."""

    similarity: torch.Tensor  # (B, T), for InfoNCE
    positive_areas: torch.Tensor  # (B,), mean of the mask of each image's own text
    negative_areas: torch.Tensor  # (B, T - 1), means of the masks of all others
    mask_tv: torch.Tensor  # scalar


def feature_similarity(
    pixels: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor | float,
    bias: torch.Tensor | float,
    chunk: int | None = None,
) -> torch.Tensor:
    """Cosines of text-grounded image embeddings with their texts (TCL Eq. 5 and 8): the S of Eq. 9, (B, T).

    M[b, t] = sigmoid(scale * cos(pixel, text) + bias); v[b, t] = sum(M * pixels) / (sum(M) + 1e-6); S = cos(v, text).
    pixels: (B, C, H, W), not normalised. texts: (T, C), L2-normalised. scale, bias: scalars.
    Departure from the paper: Eq. 8 averages normalised embeddings there, un-normalised ones in the released code and
    here.
    chunk: texts that are handled at a time, None for a choice by size. It bounds the memory, never B x T x H x W, and
    leaves value and gradients as they are. Raises ValueError for shapes that do not fit together.
    """
    return GroundedPooling.apply(*_checked(pixels, texts, scale, bias, chunk), chunk, False)[0]


def text_grounding_terms(
    pixels: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor | float,
    bias: torch.Tensor | float,
    positives: torch.Tensor,
    chunk: int | None = None,
) -> GroundingTerms:
    """All that a training step needs of the B x T soft masks, for TCL Eq. 8-11, in one walk over blocks of texts.

    As `feature_similarity`, and also the areas for `area_loss` and the total variation of all masks, equal to
    `tv_loss(masks)`. positives: (B,) int64, the index of each image's own text; all other texts are its negatives,
    also those that say the same. Gradients are those of the whole masks.
    """
    inputs = _checked(pixels, texts, scale, bias, chunk)
    if positives.shape != pixels.shape[:1] or positives.dtype != torch.int64:
        given = f"{tuple(positives.shape)} {positives.dtype}"
        raise ValueError(f"got positives {given}, expected ({len(pixels)},) int64: each image's own text")
    if (positives < 0).any() or (positives >= len(texts)).any():
        raise ValueError(f"got positives {positives.tolist()}, expected 0 to {len(texts) - 1}: one of the texts")
    similarity, areas, mask_tv = GroundedPooling.apply(*inputs, chunk, True)
    own = positives[:, None]
    others = torch.arange(len(texts) - 1, device=own.device)
    others = others + (others >= own)  # 0 ... T - 1 without the own one
    return GroundingTerms(similarity, areas.gather(1, own)[:, 0], areas.gather(1, others), mask_tv)


def area_loss(
    positive: torch.Tensor, negative: torch.Tensor, positive_prior: float = 0.4, negative_prior: float = 0.0
) -> torch.Tensor:
    """|mean(positive) - prior| + |mean(negative) - prior| (TCL Eq. 10), a scalar.

    positive, negative: soft masks of own and of other texts, or their areas, of any shape. As in the released code,
    there is one mean over the whole tensor, not one per mask: areas of different images make up for one another. The
    paper's norm can be read either way. Departure from the released code: without negatives (a single pair) the term of
    Eq. 10 that wants them is 0, where it has NaN.
    """
    terms = [(positive, positive_prior), (negative, negative_prior)]
    wide = [(at_least_float32(area), prior) for area, prior in terms]
    return sum((area.mean() - prior).abs() if area.numel() else area.sum() for area, prior in wide)


def tv_loss(x: torch.Tensor) -> torch.Tensor:
    """Anisotropic total variation (TCL Eq. 11): mean |x[.., w + 1] - x[.., w]| + mean |x[.., h + 1, w] - x[.., h, w]|.

    x: (..., H, W), masks or pixel embeddings. Departure from the paper: Eq. 11 is made of means, as in the released
    code, where the paper writes norms, so that the weight does not depend on the size; and the embeddings are not
    normalised, though the paper's V^s is. A direction with one pixel has no differences and costs 0. Until the backward
    pass only x is held: the differences are made again. Raises ValueError for fewer than two axes and for an empty x.
    """
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"got x of shape {tuple(x.shape)}, expected (..., H, W) with at least one element")
    return checkpoint(_total_variation, x, use_reentrant=False, preserve_rng_state=False)


def _total_variation(x: torch.Tensor) -> torch.Tensor:
    across, down = (at_least_float32(x).diff(dim=axis).abs() for axis in (-1, -2))
    return sum(steps.sum() / max(1, steps.numel()) for steps in (across, down))


def _checked(pixels, texts, scale, bias, chunk) -> list[torch.Tensor]:
    """The four tensors in one dtype of at least float32. Raises ValueError, saying what came and what was expected."""
    given = f"pixels {tuple(pixels.shape)} and texts {tuple(texts.shape)}"
    if pixels.ndim != 4 or texts.ndim != 2 or pixels.shape[1] != texts.shape[1]:
        raise ValueError(f"got {given}, expected (B, C, H, W) and (T, C) with the same C")
    if 0 in pixels.shape or 0 in texts.shape:
        raise ValueError(f"got {given}, expected none to be empty")
    if chunk is not None and chunk < 1:
        raise ValueError(f"got chunk {chunk}, expected at least 1 text, or None for a choice by size")
    pixels = at_least_float32(pixels)
    scalars = [torch.as_tensor(value, dtype=pixels.dtype, device=pixels.device) for value in (scale, bias)]
    if any(value.numel() != 1 for value in scalars):
        raise ValueError(f"got scale {tuple(scalars[0].shape)} and bias {tuple(scalars[1].shape)}, expected scalars")
    return [pixels, texts.to(pixels.dtype), *(value.reshape(()) for value in scalars)]
