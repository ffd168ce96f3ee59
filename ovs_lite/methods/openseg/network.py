"""OpenSeg's two maps of one pyramid: F_s, which masks come from, and F_z, which words are compared with.

OpenSeg (Ghiasi et al., ECCV 2022), sections 3.1, 3.2 and 4.1. B images, N proposals, C channels, D joint embedding,
H W pixels, h w a quarter of them.
"""

import math

import torch
from torch import nn

from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.models.fpn import EmbeddingHead

TEMPERATURE = 0.07  # where tau of Eq. 2 starts, as CLIP's; the paper does not say
SMALLEST = 1 / MAX_SCALE


class OpenSegNetwork(nn.Module):
    """What OpenSeg trains: the proposer (backbone, pyramid, F_s, queries), F_z's head and the temperature."""

    def __init__(self, proposer: OpenSegProposer, embed_dim: int):
        super().__init__()
        self.proposer = proposer
        self.meaning_head = EmbeddingHead(proposer.config.channels, embed_dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))

    @property
    def temperature(self) -> torch.Tensor:
        """tau of Eq. 2, learned."""
        return self.log_temperature.exp().clamp(min=SMALLEST)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> mask logits (B, N, h, w) and F_z (B, D, h, w), not normalised."""
        proposals = self.proposer.network
        features = proposals.pixel_features(self.proposer.normalise(images))
        return proposals.masks(features), self.meaning_head(features)
