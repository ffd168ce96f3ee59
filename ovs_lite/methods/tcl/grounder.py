"""TCL's grounder: from the tokens before a frozen ViT's last block to one embedding per pixel, and to masks.

TCL (Cha et al., CVPR 2023), section 3.2, Eq. 4 and 5; its decoder: appendix B, Eq. 14 and Fig. 7. What is copied, what
is trained, and the decoder's order, sizes and start are as in the released code.
B images, T texts, W width of the ViT, C channels, D joint embedding, h w patches.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip.dense import value_path

SCALE, BIAS = 10.0, -2.5  # where Eq. 5 starts: masks end where the cosine is 0.25
TEMPERATURE = 0.07  # where both InfoNCE temperatures start


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

    Untrained it only upsamples. Maps are kept channels last, in which a norm over channels needs no copy. The paper's
    third, bilinear upsampler works on masks, at inference; see `methods.tcl`.
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


class TextGrounder(nn.Module):
    """What TCL trains. visual: open_clip's VisionTransformer with a projection, which stays as it is.

    block: copy of its last block, used by its value path (as MaskCLIP). decoder. norm, proj: copies of its last norm
    and projection, applied pixel by pixel after the decoder. scale, bias: w and b of Eq. 5. image_scale, feature_scale:
    logs of 1/temperature of the image-level and the feature-level InfoNCE. Raises ValueError for other image towers.
    """

    def __init__(self, visual: nn.Module):
        super().__init__()
        if not hasattr(visual, "transformer") or getattr(visual, "proj", None) is None:
            raise ValueError(f"got image tower {type(visual).__name__}, expected open_clip's ViT with a projection")
        self.block = copy.deepcopy(visual.transformer.resblocks[-1])
        self.decoder = GroundingDecoder(visual.conv1.out_channels)
        self.norm = copy.deepcopy(visual.ln_post)
        self.proj = nn.Parameter(visual.proj.detach().clone())
        self.scale, self.bias = nn.Parameter(torch.tensor(SCALE)), nn.Parameter(torch.tensor(BIAS))
        self.image_scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))
        self.feature_scale = nn.Parameter(torch.tensor(-math.log(TEMPERATURE)))
        self.requires_grad_()

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int], train_block: bool = True) -> torch.Tensor:
        """(B, 1 + h * w, W) tokens before the last block -> pixel embeddings (B, D, 4h, 4w), not normalised (V^s).

        train_block: False keeps the block out of the gradient, and so out of the optimiser's step.
        """
        with torch.set_grad_enabled(train_block and torch.is_grad_enabled()):
            patches = value_path(self.block, tokens)[:, 1:]
        patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # channels last in memory
        pixels = self.decoder(patches).permute(0, 2, 3, 1)
        return (self.norm(pixels) @ self.proj).permute(0, 3, 1, 2)
