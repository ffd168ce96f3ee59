"""The class token looks at patches in the last blocks only, at first: so that what it reads there is about places.

A class token that may look at patches in every block gathers names block by block in its own features, and the patches
of a miniature never learn them: in the last block's values, which MaskCLIP reads, a thing's pixels are then named right
no more often than by chance. Large CLIPs trained on hundreds of millions of pairs come to read late by themselves. Here
attention from the class token to patches is closed in the early blocks during the first part of training, and opened
step by step; what is trained, and shipped, is a plain ViT. Not in any of the papers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

READING_BLOCKS = 2  # of the last, in which the class token always looks at patches
CLOSED, OPEN = 0.65, 0.70  # shares of the steps until which it is closed, and from which it is open
FIRST_BIAS = -8.0  # of the attention logits as it begins to open


def reading_bias(progress: float) -> float:
    """What is added to the early blocks' attention logits from class token to patches, by the share of steps done."""
    if progress < CLOSED:
        return float("-inf")
    return min(0.0, FIRST_BIAS * (OPEN - progress) / (OPEN - CLOSED))


@contextmanager
def late_reading(visual: nn.Module, bias: float) -> Iterator[None]:
    """Inside it an open_clip ViT (class token first) computes with `bias`, see `reading_bias`; 0 changes nothing.

    Raises ValueError for another network.
    """
    if not hasattr(visual, "class_embedding"):
        raise ValueError(f"got {type(visual).__name__}, expected a vision transformer with a class token")

    def biased(block: nn.Module, given: tuple, options: dict) -> tuple[tuple, dict]:
        length = given[0].shape[1]
        mask = torch.zeros(length, length, device=given[0].device)
        mask[0, 1:] = bias
        return given[:1], {"attn_mask": mask}

    early = visual.transformer.resblocks[:-READING_BLOCKS] if bias < 0 else []
    hooks = [block.register_forward_pre_hook(biased, with_kwargs=True) for block in early]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
