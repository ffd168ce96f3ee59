"""The feature pyramid of OpenSeg, merged into one map at stride 4, and the heads that read it.

B images, C channels, h w = a quarter of the image's sides.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from ovs_lite.models.backbone import Backbone

GROUPS = 8


class PyramidSum(nn.Module):
    """Backbone -> FPN (Lin et al., CVPR 2017) -> all levels enlarged to P2 and summed: (B, C, h, w).

    OpenSeg, section 4.1: "upsample all feature levels to P2, and then merge them by a sum operation".
    """

    def __init__(self, backbone: Backbone, channels: int):
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(backbone.channels, channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised -> (B, C, h, w)."""
        return self.merge(self.backbone(images))

    def merge(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """The backbone's maps P2..P5 -> (B, C, h, w)."""
        levels = list(self.pyramid({str(i): level for i, level in enumerate(maps)}).values())
        size = levels[0].shape[-2:]
        return sum(F.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels)


class EmbeddingHead(nn.Sequential):
    """`PixelHead`, then a 1 x 1 convolution to a text tower's D: (B, C, h, w) -> (B, D, h, w), not normalised.

    Departure: the pyramid's C and the text tower's D may differ; in OpenSeg's paper both are 640.
    """

    def __init__(self, channels: int, embed_dim: int):
        super().__init__(PixelHead(channels), nn.ReLU(), nn.Conv2d(channels, embed_dim, 1))

    def inner(self, features: torch.Tensor) -> torch.Tensor:
        """All but the last layer, which is linear: (B, C, h, w) -> (B, C, h, w)."""
        return self[1](self[0](features))


class PixelHead(nn.Sequential):
    """A fully connected layer per pixel, then `convs` 3x3 convolutions: (B, C, h, w) -> (B, C, h, w).

    OpenSeg, section 4.1, makes both F_s (for masks) and F_z (for meaning) with such a head. Departure: group
    normalisation before each ReLU; the paper does not say what normalises, and batch statistics would tie the loss of
    an image to its neighbours in the batch.
    """

    def __init__(self, channels: int, convs: int = 3):
        layers: list[nn.Module] = [nn.Conv2d(channels, channels, 1)]
        for _ in range(convs):
            layers += [nn.GroupNorm(GROUPS, channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        super().__init__(*layers)
