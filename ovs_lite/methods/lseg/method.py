"""LSeg+'s network and inference: one embedding per pixel, compared with every class name. Papers: see the folder.

B images, K classes, C channels, D joint embedding, H W pixels, h w a quarter of them.
"""

import math

import torch
from torch import nn
from torchvision.transforms.v2.functional import normalize

from ovs_lite.clip import Clip
from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.methods.base import PatchFeatures, encodes, scores_from
from ovs_lite.methods.lseg.config import PRESETS, LSegConfig
from ovs_lite.methods.own_backbone import OwnBackbone
from ovs_lite.methods.proposer import start_backbone
from ovs_lite.models.fpn import EmbeddingHead, PyramidSum
from ovs_lite.models.text_masks import patch_cosines
from ovs_lite.regions.score_maps import at_stride

TEMPERATURE = 0.07


class LSegNetwork(nn.Module):
    """What LSeg+ trains: backbone, pyramid, head, and the temperature of its softmax."""

    def __init__(self, config: LSegConfig, embed_dim: int, fresh: bool):
        super().__init__()
        backbone = start_backbone(config, fresh)
        self.mean, self.std = list(backbone.mean), list(backbone.std)
        self.features = PyramidSum(backbone, config.channels)
        self.head = EmbeddingHead(config.channels, embed_dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))

    @property
    def temperature(self) -> torch.Tensor:
        """What cosines are divided by before the softmax over classes."""
        return self.log_temperature.exp().clamp(min=1 / MAX_SCALE)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, D, h, w), not normalised."""
        return self.head(self.features(normalize(images, self.mean, self.std)))


class LSeg(OwnBackbone):
    """See the module docstring. clip, config: see `OwnBackbone`. fresh: the backbone starts from weights, else a file
    will bring them."""

    name = "lseg"
    templates = PRESETS["lite"].templates
    lite = PRESETS["lite"]

    def __init__(self, clip: Clip, config: LSegConfig | None = None, fresh: bool = False):
        super().__init__(clip, config)
        self.network = LSegNetwork(self.config, clip.embed_dim, fresh).to(clip.device)

    @encodes
    def encode(self, images: torch.Tensor) -> PatchFeatures:
        """(B, 3, H, W) normalised -> an embedding for every four by four pixels."""
        return PatchFeatures(images.shape[-2:], self.network(images * self.clip.std + self.clip.mean).float())

    @scores_from(PatchFeatures)
    def scores(self, features: PatchFeatures, text_embeddings: torch.Tensor) -> torch.Tensor:
        """-> (B, K, H, W) cosines in [-1, 1], bilinear to input size."""
        found = patch_cosines(features.patches, text_embeddings.to(features.patches.dtype))
        return at_stride(found, features.size)
