"""OpenSeg's grounding loss (Ghiasi et al., ECCV 2022, section 3.2): the words of a caption find their regions.

B images and their captions, N regions of an image, K words of a caption at the most, W words of all captions, D
embedding. Every word is compared with every region of every image, B N W cosines, which are never held together: a walk
over blocks makes the cosines of some images and some words, uses them and forgets them; so does the backward pass.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ovs_lite.tensors import at_least_float32, nothing_learned

CPU_BLOCK = 2**18  # cosines: a block, its softmax and its gradient stay in a core's cache
BIG_BLOCK = 2**24  # on accelerators, where many launches cost more than the memory
MOST_WORDS = 256  # of a block


def grounding_loss(
    regions: torch.Tensor, words: torch.Tensor, word_valid: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor:
    """Eq. 4: every image is classified among all captions, and every caption among all images, by Eq.
    3's score of the two.

    regions: (B, N, D), z of Eq. 3, of any length. words: (B, K, D), w, padded: word_valid (B, K) bool says which count.
    temperature: scalar tau > 0 of Eq. 2, in both of its uses. Returns a scalar: the sum of the two cross-entropies,
    averaged over the pairs. The batch is what is given: gather regions and words of all processes first for the
    paper's "sync" loss.

    Departure, where the paper is silent: a pair whose caption has no valid word is left out of Eq. 4, as positive and
    as negative. The loss is that of the batch without it, so 0 with gradients of 0 where no caption has a word, and 0
    for one pair, which has nothing to be contrasted with. Raises ValueError for shapes that do not fit.
    """
    _check(regions, words, word_valid)
    pairs = word_valid.any(1)
    scores = grounding_scores(regions[pairs], words[pairs], word_valid[pairs], temperature)
    if not len(scores):
        return nothing_learned(regions, words)
    logits, positives = scores / temperature, torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)


def grounding_scores(
    regions: torch.Tensor, words: torch.Tensor, word_valid: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor:
    """Eq. 3, G: (B, N, D) regions of images, (C, K, D) words of captions, (C, K) bool -> (B, C) scores in [-1, 1].

    The mean over a caption's words of their cosines with the regions, weighted by a softmax over the regions (Eq. 2).
    NaN for captions without a valid word.
    """
    regions, words = (
        F.normalize(at_least_float32(regions), dim=2),
        F.normalize(at_least_float32(words)[word_valid], dim=1),
    )
    tau = torch.as_tensor(temperature, dtype=regions.dtype, device=regions.device)
    found = _WordScores.apply(regions, words.to(regions.dtype), 1 / tau)
    counts = word_valid.sum(1)
    captions = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    sums = found.new_zeros(len(found), len(counts)).index_add(1, captions, found)
    return sums / counts


class _WordScores(torch.autograd.Function):
    """Normalised regions (B, N, D) and words (W, D), inverse temperature -> (B, W): sum_i softmax_i(c / tau) c_i."""

    @staticmethod
    def forward(ctx, regions, words, sharpness):
        scores = regions.new_empty(len(regions), len(words))
        with torch.autocast(regions.device.type, enabled=False):
            for images, some in _blocks(regions, len(words)):
                cosines, shares = _attention(regions[images], words[some], sharpness)
                scores[images, some] = shares.mul_(cosines).sum(1)
        ctx.save_for_backward(regions, words, sharpness, scores)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        regions, words, sharpness, scores = ctx.saved_tensors
        to_regions, to_words = torch.zeros_like(regions), torch.zeros_like(words)
        to_sharpness = torch.zeros_like(sharpness)
        with torch.autocast(regions.device.type, enabled=False):
            for images, some in _blocks(regions, len(words)):
                tile, text = regions[images], words[some]
                cosines, shares = _attention(tile, text, sharpness)
                shares.mul_(gradient[images, None, some])
                beyond = cosines - scores[images, None, some]
                to_sharpness += (cosines.mul_(shares) * beyond).sum()
                slope = shares.mul_(beyond.mul_(sharpness).add_(1)).flatten(0, 1)  # of the cosines
                to_regions[images] += (slope @ text).view_as(tile)
                to_words[some] += slope.T @ tile.flatten(0, 1)
        return to_regions, to_words, to_sharpness


def _attention(regions, words, sharpness) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines (b, N, w) of a block, and each word's softmax over the regions of each image."""
    cosines = (regions.flatten(0, 1) @ words.T).view(*regions.shape[:2], len(words))
    return cosines, (cosines * sharpness).softmax(1)


def _blocks(regions: torch.Tensor, words: int) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of words that cover B x W once."""
    room = CPU_BLOCK if regions.device.type == "cpu" else BIG_BLOCK
    step = max(1, min(words, MOST_WORDS, room // max(1, regions.shape[1])))
    some = max(1, room // max(1, step * regions.shape[1]))
    for image in range(0, len(regions), some):
        for word in range(0, words, step):
            yield slice(image, image + some), slice(word, word + step)


def _check(regions: torch.Tensor, words: torch.Tensor, word_valid: torch.Tensor) -> None:
    fits = regions.ndim == words.ndim == 3 and regions.shape[::2] == words.shape[::2] and regions.shape[1] > 0
    if not fits or word_valid.shape != words.shape[:2] or word_valid.dtype != torch.bool:
        shapes = f"{tuple(regions.shape)}, {tuple(words.shape)} and {tuple(word_valid.shape)} {word_valid.dtype}"
        raise ValueError(f"got shapes {shapes}, expected regions (B, N, D), words (B, K, D), word_valid (B, K) bool")
