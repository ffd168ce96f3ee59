"""Masks of all images and texts, never held together: TCL's dense terms in one walk, with analytic gradients.

B images, T texts, C channels, N = H W pixels; a block has b images and t texts. Forward and backward make the masks of
a block, (b, N, t), use them for everything and forget them. In raw dot products z = p . t, with |p| >= EPS:

    M = sigmoid(scale z / |p| + bias)        Q = sum_n M p        S = Q . t / max(|Q|, EPS (sum_n M + EPS))

S is the cosine of Q / (sum_n M + EPS) and t: the area cancels, except where the pooled vector vanishes. Texts are the
last axis of a block, so that neighbours in x and in y are contiguous runs of memory.
"""

from collections.abc import Iterator

import torch
from torch.autograd.function import once_differentiable

from ovs_lite.models.text_masks import EPS  # of the norms and of the area

CPU_BLOCK = 2**18  # elements: a block and its gradient stay in a core's cache
BIG_BLOCK = 2**24  # on accelerators, where many launches cost more than the memory
FEWEST_TEXTS, MOST_TEXTS = 16, 128  # of a block whose size is not given: narrower or wider products are not faster


class GroundedPooling(torch.autograd.Function):
    """TCL Eq. 5 and 8, Eq. 10's areas and Eq. 11 of the masks: pixels (B, C, H, W), texts (T, C), scalar scale, bias.

    Gives the cosines (B, T), the mean of each mask (B, T), and, if `smooth`, the total variation of all masks, else 0.
    Wants float32 or float64, all of one dtype and device.
    """

    @staticmethod
    def forward(ctx, pixels, texts, scale, bias, chunk, smooth):
        ctx.size, ctx.chunk, ctx.smooth = pixels.shape, chunk, smooth
        ctx.weights = _variation_weights((len(pixels), *pixels.shape[2:], len(texts)))
        pixels = pixels.flatten(2)
        norms = torch.linalg.vector_norm(pixels, dim=1).clamp_(min=EPS)
        similarity = pixels.new_empty(len(pixels), len(texts))
        areas, variation = torch.empty_like(similarity), [pixels.new_zeros(())]
        with torch.autocast(pixels.device.type, enabled=False):
            for images, words in _blocks(ctx.size, len(texts), chunk, pixels.device):
                tile, text = pixels[images], texts[words]
                _, masks = _masks(tile, text, scale / norms[images], bias)
                sums, pooled = _pool(tile, masks)
                areas[images, words] = sums / masks.shape[1]
                similarity[images, words] = (pooled * text).sum(2) / _length(pooled, sums)
                if smooth:
                    variation.append(_variation(masks.unflatten(1, ctx.size[2:]), ctx.weights))
        ctx.save_for_backward(pixels, texts, scale, bias, norms, similarity)
        return similarity, areas, torch.stack(variation).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_similarity, grad_areas, grad_variation):
        pixels, texts, scale, bias, norms, similarity = ctx.saved_tensors
        to_pixels = torch.zeros_like(pixels)
        to_texts, to_scales, to_bias = torch.zeros_like(texts), torch.zeros_like(norms), torch.zeros_like(bias)
        with torch.autocast(pixels.device.type, enabled=False):
            for images, words in _blocks(ctx.size, len(texts), ctx.chunk, pixels.device):
                tile, text, inverse = pixels[images], texts[words], 1 / norms[images]
                dots, masks = _masks(tile, text, scale * inverse, bias)
                cosine = similarity[images, words], grad_similarity[images, words]
                to_pooled, to_sums, to_text = _cosine_gradient(*_pool(tile, masks), text, *cosine)
                to_sums += grad_areas[images, words] / masks.shape[1]
                slope = torch.zeros_like(masks)
                if ctx.smooth:
                    variation = _variation_gradient(masks.unflatten(1, ctx.size[2:]), ctx.weights)
                    slope = variation.flatten(1, 2).mul_(grad_variation)
                slope += to_sums[:, None]
                slope.baddbmm_(tile.mT, to_pooled.mT)  # now of the masks
                slope.mul_(masks).addcmul_(slope, masks, value=-1)  # of the logits: sigmoid' = m (1 - m)
                to_bias += slope.sum()
                slope.mul_(inverse[..., None])  # of scale z
                to_pixels[images].baddbmm_(to_pooled.mT, masks.mT).baddbmm_(_each(scale * text, tile).mT, slope.mT)
                if ctx.needs_input_grad[1]:
                    to_texts[words] += to_text + scale * (slope.mT @ tile.mT).sum(0)
                to_scales[images] += dots.mul_(slope).sum(2)
        turning = scale * to_scales / norms.square() * (norms > EPS)  # cosines do not change along p
        to_pixels.addcmul_(pixels, turning[:, None], value=-1)
        return to_pixels.view(ctx.size), to_texts, to_scales.sum(), to_bias, None, None


def _blocks(size, texts: int, chunk: int | None, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of texts that cover B x T once. chunk: texts of a block; images join while it is small."""
    room = CPU_BLOCK if device.type == "cpu" else BIG_BLOCK
    each = max(size[1], size[2] * size[3])  # a mask or a pooled embedding
    chunk = min(texts, chunk or max(FEWEST_TEXTS, min(MOST_TEXTS, room // each)))
    step = max(1, room // (chunk * each))
    for image in range(0, size[0], step):
        for text in range(0, texts, chunk):
            yield slice(image, image + step), slice(text, text + chunk)


def _each(text: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
    return text.expand(len(tile), -1, -1)


def _masks(tile, text, slopes, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Dot products and masks, (b, N, t) both, of pixels (b, C, N) and texts (t, C); slopes: scale / |p|, (b, N)."""
    dots = tile.mT @ _each(text, tile).mT
    return dots, (dots * slopes[..., None]).add_(bias).sigmoid_()


def _pool(tile, masks) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of each mask (b, t), and of the pixels under it (b, t, C)."""
    return masks.sum(1), masks.mT @ tile.mT


def _length(pooled, sums) -> torch.Tensor:
    """What the dot product with the text is divided by, (b, t): see the top of this file."""
    return torch.maximum(torch.linalg.vector_norm(pooled, dim=2), EPS * (sums + EPS))


def _cosine_gradient(sums, pooled, text, cosine, gradient) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the pooled sums (b, t, C), of the sums of masks (b, t) and, through Q . t alone, of the texts."""
    length = _length(pooled, sums)
    strength, vanishing = (gradient / length)[..., None], length == EPS * (sums + EPS)
    turning = torch.where(vanishing, 0, cosine / length)[..., None]
    to_sums = torch.where(vanishing, -EPS * gradient * cosine / length, 0)
    return strength * (text - turning * pooled), to_sums, (strength * pooled).sum(0)


def _variation(grid: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """wx sum |dx| + wy sum |dy| of (planes, H, W, texts)."""
    across, down = grid[:, :, 1:] - grid[:, :, :-1], grid[:, 1:] - grid[:, :-1]
    return weights[0] * across.abs_().sum() + weights[1] * down.abs_().sum()


def _variation_gradient(grid: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """Gradient of `_variation`; 0 between equal neighbours, as torch has it for abs."""
    gradient = torch.zeros_like(grid)
    for axis, weight in zip((2, 1), weights, strict=True):
        length = grid.shape[axis] - 1
        sign = (grid.narrow(axis, 1, length) - grid.narrow(axis, 0, length)).sign_()
        gradient.narrow(axis, 1, length).add_(sign, alpha=weight)
        gradient.narrow(axis, 0, length).sub_(sign, alpha=weight)
    return gradient


def _variation_weights(size) -> tuple[float, float]:
    """1 / number of differences in x and in y of (planes, H, W, texts): sums become means."""
    planes, height, width, texts = size
    return 1 / max(1, planes * height * (width - 1) * texts), 1 / max(1, planes * (height - 1) * width * texts)
