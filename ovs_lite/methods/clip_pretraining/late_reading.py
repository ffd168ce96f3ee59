"""The class token looks at patches in the last blocks only, at first: so that what it reads there is about places.

A class token that looks at patches in every block can gather names in the first ones, and then the last block's values,
which MaskCLIP reads, need not know them. Here attention from the class token to patches is closed in the first blocks
during the first part of a training run, and opened step by step; what is trained, and shipped, is a plain ViT. Not in
any of the papers. The card `clip/lite/weights/ViT-Lite-8.md` has the figures with and without.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

CLOSED, OPEN = 0.65, 0.70  # shares of the steps until which it is closed, and from which it is open
FIRST_BIAS = -8.0  # of the attention logits as it begins to open


class LateReading:
    """Which of a ViT's first blocks are closed, and for how long.

    visual: open_clip's ViT, class token first. blocks: how many of its first blocks. steps: of the training run. Raises
    ValueError for another network, and where no block would be left for the class token to look at patches.
    """

    def __init__(self, visual: nn.Module, blocks: int, steps: int):
        if not hasattr(visual, "class_embedding"):
            raise ValueError(f"got {type(visual).__name__}, expected a vision transformer with a class token")
        every = list(visual.transformer.resblocks)
        if not 0 < blocks < len(every):
            raise ValueError(f"got {blocks} closed blocks, expected 1 to {len(every) - 1} of {len(every)}")
        self.blocks, self.steps = every[:blocks], steps

    def bias(self, step: int) -> float:
        """What is added at a step to the logits of attention from the class token to patches; 0 changes nothing."""
        progress = step / self.steps
        if progress < CLOSED:
            return float("-inf")
        return min(0.0, FIRST_BIAS * (OPEN - progress) / (OPEN - CLOSED))

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Inside it the network computes as that step of the training run has it."""
        bias = self.bias(step)

        def biased(block: nn.Module, given: tuple, options: dict) -> tuple[tuple, dict]:
            length = given[0].shape[1]
            mask = torch.zeros(length, length, device=given[0].device)
            mask[0, 1:] = bias
            return given[:1], {"attn_mask": mask}

        closed = self.blocks if bias < 0 else []
        hooks = [block.register_forward_pre_hook(biased, with_kwargs=True) for block in closed]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
