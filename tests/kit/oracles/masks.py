"""Dice and focal terms and masks as sets of pixels, by loops over Python floats."""

import math

import torch


def slow_dice(s, t, smooth=0.0):
    """2 |s t| / (|s| + |t|) of two lists of values in [0, 1]."""
    above, below = smooth + sum(2 * x * y for x, y in zip(s, t, strict=True)), smooth + sum(s) + sum(t)
    return above / below if below else 0.0


def slow_focal(logits, targets, alpha, gamma):
    """Lin et al., Eq. 5, mean over a list of pixels: a soft target is a mixture of the two sides."""
    total = 0.0
    for x, y in zip(logits, targets, strict=True):
        p = 1 / (1 + math.exp(-x))
        one, zero = -((1 - p) ** gamma) * math.log(p), -(p**gamma) * math.log(1 - p)
        total += y * one * (alpha if alpha >= 0 else 1) + (1 - y) * zero * (1 - alpha if alpha >= 0 else 1)
    return total / len(logits)


def of_all_pairs(slow, first, second, *options):
    """(N, P) and (M, P) tensors: the (N, M) values of an oracle of two lists."""
    rows = [[slow(s, t, *options) for t in second.tolist()] for s in first.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def of_matched_pairs(slow, first, second, *options):
    """Two (M, P) tensors: the mean of an oracle of two lists over their rows."""
    return sum(slow(s, t, *options) for s, t in zip(first.tolist(), second.tolist(), strict=True)) / len(first)


def pixels(mask):
    """The set of (row, column) where a mask is more than 0.5."""
    return {(y, x) for y, row in enumerate(mask.tolist()) for x, value in enumerate(row) if value > 0.5}
