"""TCL's dense terms twice more: by loops over Python floats, and as the released code holds all masks at once."""

import math

import torch
import torch.nn.functional as F

LEAVES = ("pixels", "texts", "scale", "bias")


def case(images=3, texts=4, channels=5, height=3, width=4, seed=0, dtype=torch.float64):
    """Pixels, texts, scale and bias as TCL starts them, and positives."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 3 * torch.randn(images, channels, height, width, generator=generator, dtype=dtype)
    words = F.normalize(torch.randn(texts, channels, generator=generator, dtype=dtype), dim=1)
    scale, bias = torch.tensor(10.0, dtype=dtype), torch.tensor(-2.5, dtype=dtype)
    leaves = [leaf.requires_grad_() for leaf in (pixels, words, scale, bias)]
    return leaves, torch.randperm(max(images, texts), generator=generator)[:images] % texts


def slow_masks(pixels, texts, scale, bias):
    """Eq. 5 pixel by pixel, over Python floats: masks[b][t][y][x]."""
    images, channels, height, width = pixels.shape
    values, words = pixels.tolist(), texts.tolist()

    def mask(b, t, y, x):
        pixel = [values[b][c][y][x] for c in range(channels)]
        norm = max(math.sqrt(sum(value**2 for value in pixel)), 1e-6)
        cosine = sum(value / norm * word for value, word in zip(pixel, words[t], strict=True))
        return 1 / (1 + math.exp(-(scale.item() * cosine + bias.item())))

    return [[[[mask(b, t, y, x) for x in range(width)] for y in range(height)] for t in range(len(words))]
            for b in range(images)]  # fmt: skip


def slow_similarity(pixels, texts, masks):
    """Eq. 8 and the cosine of Eq. 9: weights mask / (sum + 1e-6), pixels as they are."""
    images, channels, height, width = pixels.shape
    values, words, found = pixels.tolist(), texts.tolist(), []
    places = [(y, x) for y in range(height) for x in range(width)]
    for b in range(images):
        for t, word in enumerate(words):
            total = sum(masks[b][t][y][x] for y, x in places) + 1e-6
            pooled = [sum(masks[b][t][y][x] / total * values[b][c][y][x] for y, x in places) for c in range(channels)]
            norm = max(math.sqrt(sum(value**2 for value in pooled)), 1e-6)
            found.append(sum(value / norm * part for value, part in zip(pooled, word, strict=True)))
    return torch.tensor(found, dtype=torch.float64).view(images, -1)


def slow_tv(planes):
    """Eq. 11 of a list of planes: the mean of |dx| and the mean of |dy|, each over all of its differences."""
    across = [abs(row[x + 1] - row[x]) for plane in planes for row in plane for x in range(len(row) - 1)]
    down = [abs(plane[y + 1][x] - plane[y][x]) for plane in planes
            for y in range(len(plane) - 1) for x in range(len(plane[0]))]  # fmt: skip
    return sum(across) / max(1, len(across)) + sum(down) / max(1, len(down))


def released_terms(pixels, texts, scale, bias, positives):
    """The released code's tensors, all masks at once: similarity, positive masks, negative masks, smoothness."""
    masks = torch.sigmoid(torch.einsum("bchw,tc->bthw", F.normalize(pixels, dim=1, eps=1e-6), texts) * scale + bias)
    weights = masks / (masks.sum((2, 3), keepdim=True) + 1e-6)
    pooled = F.normalize(torch.einsum("bchw,bthw->btc", pixels, weights), dim=2, eps=1e-6)
    own = F.one_hot(positives, len(texts)).bool()
    across, down = masks[..., 1:] - masks[..., :-1], masks[..., 1:, :] - masks[..., :-1, :]
    return torch.einsum("btc,tc->bt", pooled, texts), masks[own], masks[~own], across.abs().mean() + down.abs().mean()


def mixed(similarity, positive, negative, smooth):
    """One scalar in which every term and every pair has a weight of its own."""
    weights = torch.linspace(-1, 2, similarity.numel(), dtype=similarity.dtype).view_as(similarity)
    return (weights * similarity).sum() + 3 * positive.mean() - 2 * negative.mean() + 5 * smooth


def gradients(value, leaves):
    return dict(zip(LEAVES, torch.autograd.grad(value, leaves), strict=True))
