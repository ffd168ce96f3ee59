"""A segmenter that looks at an image once, however many methods use its masks.

For tables whose rows find the same masks and name them differently, such as Uni-OVSeg's ablation (Wang et al., 2024,
Table 4). B images, N masks of each, h w a quarter of the sides at which the segmenter sees.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ovs_lite.methods.uniovseg.config import PromptConfig
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.tensors import tensors_digest


@dataclass(frozen=True)
class UnseenImages:
    """B images (B, 3, H, W) in [0, 1] that nobody looked at yet. size: their (H, W)."""

    images: torch.Tensor
    size: tuple[int, int]


class KeptMasks(nn.Module):
    """What `UniOVSeg` asks of a `PromptSegmenter`, with the masks of each image kept for as long as this object lives.

    The segmenter's weights and configuration must not change meanwhile. An image of which the masks are known is not
    looked at again, whichever others it comes with.
    """

    def __init__(self, segmenter: PromptSegmenter):
        super().__init__()
        self.segmenter = segmenter
        self.kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def config(self) -> PromptConfig:
        """The segmenter's."""
        return self.segmenter.config

    def see(self, images: torch.Tensor) -> UnseenImages:
        """As `PromptSegmenter.see`, without looking."""
        return UnseenImages(images, tuple(images.shape[-2:]))

    @torch.no_grad()
    def grid_masks(self, seen: UnseenImages) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """As `PromptSegmenter.grid_masks`: of each image logits (N, h, w) and scores (N,), best first."""
        keys = [tensors_digest("image", [image]) for image in seen.images]
        for key, image in zip(keys, seen.images, strict=True):
            if key not in self.kept:
                (self.kept[key],) = self.segmenter.grid_masks(self.segmenter.see(image[None]))
        return [self.kept[key] for key in keys]
