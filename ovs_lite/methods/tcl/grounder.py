"""TCL's grounder: from the tokens before a frozen ViT's last block to one embedding per pixel, and to masks.

TCL (Cha et al., CVPR 2023), section 3.2, Eq. 4 and 5; what is copied and what is trained as in the released code.
B images, T texts, W width of the ViT, D joint embedding, h w patches.
"""

import copy
import math

import torch
from torch import nn

from ovs_lite.clip.dense import value_path
from ovs_lite.methods.tcl.decoder import GroundingDecoder

SCALE, BIAS = 10.0, -2.5  # where Eq. 5 starts: masks end where the cosine is 0.25
TEMPERATURE = 0.07  # where both InfoNCE temperatures start


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
