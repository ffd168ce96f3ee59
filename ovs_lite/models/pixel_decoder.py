"""From a backbone's four maps to what masks are read from: a deformable encoder on the coarse ones, then an FPN.

Mask2Former (Cheng et al., CVPR 2022), section 3.2.2, as Uni-OVSeg's appendix A describes it. B images, C channels,
S pixels of strides 32, 16 and 8, h w a quarter of the image's sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.models.deformable_attention import MultiScaleDeformableAttention
from ovs_lite.models.positions import PositionEncoding, cell_centres

GROUP = 8  # channels that are normalised together: 32 groups at 256 channels, as Mask2Former


@dataclass(frozen=True)
class PixelFeatures:
    """pixels: (B, C, h, w), whose products with queries are mask logits. levels: (B, C, h_l, w_l) at strides 32, 16, 8,
    which queries attend to. places: (h_l w_l, C), the encoded places of each level's pixels."""

    pixels: torch.Tensor
    levels: tuple[torch.Tensor, ...]
    places: tuple[torch.Tensor, ...]


class PixelDecoder(nn.Module):
    """A backbone's maps at strides 4, 8, 16, 32 -> `PixelFeatures`.

    in_channels: of the four maps, finest first.
    positions: see `PositionEncoding`; has no weights.
    layers: of the deformable encoder on strides 8 to 32 (the paper's 6). 0: the FPN alone goes down to stride 4.
    points: places that a query reads in each level and head.
    Departure: the encoded places of the finest map's pixels are added to it before the last convolution, as OpenSeg
    does with its F_s (its section 3.1), so that a mask can depend on where a pixel lies: a box's mask needs little
    more, and of two things that look alike a point means one.
    Normalisation is GroupNorm everywhere, as the paper says (appendix A); the released model has a LayerNorm over
    channels after the projections before the encoder instead.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        positions: PositionEncoding,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        feedforward: int = 1024,
    ):
        super().__init__()
        self.positions = positions
        coarse = len(in_channels) - 1
        self.project = nn.ModuleList([_normed(width, channels, 1) for width in in_channels[::-1]])  # coarsest first
        self.level_embedding = nn.Parameter(torch.randn(coarse, channels)) if layers else None
        self.blocks = nn.ModuleList([EncoderLayer(channels, heads, coarse, points, feedforward) for _ in range(layers)])
        smoothed = 1 if layers else coarse  # levels that the FPN adds to the ones above
        self.smooth = nn.ModuleList([nn.Sequential(_normed(channels, channels, 3), nn.ReLU()) for _ in range(smoothed)])
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> PixelFeatures:
        """Four maps (B, C_l, h_l, w_l), finest first."""
        projected = [project(level) for project, level in zip(self.project, maps[::-1], strict=True)]
        levels = self._encoded(projected[:-1]) if len(self.blocks) else projected[:1]
        for smooth, finer in zip(self.smooth, projected[len(levels) :], strict=True):
            above = F.interpolate(levels[-1], finer.shape[-2:], mode="bilinear", align_corners=False)
            levels = [*levels, smooth(finer + above)]
        *places, finest = (self.positions.grid(*level.shape[-2:]) for level in levels)
        placed = levels[-1] + finest.T.unflatten(1, levels[-1].shape[-2:])
        return PixelFeatures(self.output(placed), tuple(levels[:-1]), tuple(places))

    def _encoded(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        shapes = [tuple(level.shape[-2:]) for level in levels]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)  # (B, S, C)
        pairs = zip(shapes, self.level_embedding, strict=True)
        positions = torch.cat([self.positions.grid(*shape) + embedding for shape, embedding in pairs])
        references = torch.cat([cell_centres(*shape) for shape in shapes]).to(positions.device)
        for block in self.blocks:
            tokens = block(tokens, positions, references, shapes)
        parts = tokens.split([height * width for height, width in shapes], 1)
        return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


class EncoderLayer(nn.Module):
    """Deformable self-attention of all levels' pixels and feed-forward; post-norm, no dropout."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, feedforward: int):
        super().__init__()
        self.attention = MultiScaleDeformableAttention(channels, heads, levels, points)
        self.feedforward = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, references: torch.Tensor, shapes: list[tuple[int, int]]
    ) -> torch.Tensor:
        """(B, S, C), (S, C), (S, 2) as (x, y) in [0, 1], (H, W) of the levels -> (B, S, C)."""
        tokens = self.norms[0](tokens + self.attention(tokens + positions, references, tokens, shapes))
        return self.norms[1](tokens + self.feedforward(tokens))


def _normed(width: int, channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(channels // GROUP, channels))
