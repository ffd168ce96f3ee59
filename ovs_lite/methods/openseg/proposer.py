"""OpenSeg's mask proposals: N soft masks of whatever can be told apart, with no idea of what they are.

OpenSeg (Ghiasi et al., ECCV 2022), section 3.1. B images, N queries, each of which is a proposal, C channels,
H W pixels, h w a quarter of them.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.methods.proposer import MaskProposer, ProposalConfig, start_backbone
from ovs_lite.models.backbone import Backbone
from ovs_lite.models.fpn import PixelHead, PyramidSum
from ovs_lite.models.query_decoder import QueryDecoder, sine_positions


class OpenSegProposals(nn.Module):
    """Image -> F (pyramid sum) -> F_s (head) + PE -> queries by cross-attention -> s = sigmoid(q . F_s^PE).

    There is no "no object" class and no score. grid: (h, w) at which the position embedding is learned; other sizes
    get it resized (bilinear). The paper leaves the number of decoder layers open (its appendix C); default 3.
    Departure: the learned position embedding starts as DETR's sine waves, not at random, so that every query begins
    with a smooth mask of its own somewhere in the image; it trains a little faster so.
    """

    def __init__(
        self,
        backbone: Backbone,
        channels: int = 64,
        num_queries: int = 128,
        layers: int = 3,
        heads: int = 4,
        grid: tuple[int, int] = (32, 32),
    ):
        super().__init__()
        self.features = PyramidSum(backbone, channels)
        self.mask_head = PixelHead(channels)
        self.positions = nn.Parameter(sine_positions(*grid, channels).T.unflatten(1, grid).contiguous())
        self.decoder = QueryDecoder(num_queries, channels, layers, heads, 4 * channels)
        self.to_mask = nn.Linear(channels, channels)

    def pixel_features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> F, (B, C, h, w), which F_s and OpenSeg's F_z are computed from."""
        return self.features(images)

    def masks(self, features: torch.Tensor) -> torch.Tensor:
        """F (B, C, h, w) -> mask logits (B, N, h, w); their sigmoid is the paper's s."""
        pixels = self.mask_head(features)
        positions = self.positions[None]
        if positions.shape[-2:] != pixels.shape[-2:]:
            positions = F.interpolate(positions, pixels.shape[-2:], mode="bilinear", align_corners=False)
        placed = (pixels + positions).flatten(2)  # F_s^PE, (B, C, h w)
        tokens = placed.transpose(1, 2)
        queries = self.decoder(tokens, torch.zeros_like(tokens[0]))[-1]
        return (self.to_mask(queries) @ placed).unflatten(2, pixels.shape[-2:])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w)."""
        return self.masks(self.pixel_features(images))


class OpenSegProposer(MaskProposer):
    """See `MaskProposer`. There is no objectness: every proposal counts. fresh, lite: see `start_backbone`."""

    recipe = "openseg-proposals"

    def __init__(self, config: ProposalConfig, fresh: bool = True, lite: str = "lite"):
        backbone, side = start_backbone(config, fresh, lite), -(-config.image_size // 4)
        sizes = (config.channels, config.queries, config.layers, config.heads)
        super().__init__(config, backbone, OpenSegProposals(backbone, *sizes, grid=(side, side)))

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w), no objectness."""
        return self.network(images), None
