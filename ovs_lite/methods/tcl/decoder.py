"""TCL's grounding decoder: four times the resolution, by convolutions that start as if they were not there.

TCL (Cha et al., CVPR 2023), appendix B, Eq. 14 and Fig. 7; order, sizes and start as in the released code.
B images, C channels, h w patches. Maps are kept channels last, in which a norm over channels needs no copy.
"""

import torch
import torch.nn.functional as F
from torch import nn


class GatedConv(nn.Module):
    """x + tanh(g) * Conv(GELU(LayerNorm(x))) with a scalar gate g that starts at 0 (Eq. 14): (B, C, h, w) -> same.

    The norm runs over channels, the convolution is 3 x 3 with zero padding and bias. Until the gate has moved the
    convolution's weights get no gradient, and the module is the identity.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + self.gate.tanh() * self.conv(hidden)


class GroundingDecoder(nn.Module):
    """(B, C, h, w) -> (B, C, 4h, 4w): twice, nearest-neighbour enlarging by two and two gated convolutions.

    Untrained it only upsamples. The paper's third, bilinear upsampler works on masks, at inference; see `methods.tcl`.
    """

    def __init__(self, channels: int, stages: int = 2):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), GatedConv(channels), GatedConv(channels)) for _ in range(stages)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return x
