"""MaskFormer as OVSeg modifies it: every proposal comes with an embedding in CLIP's space instead of class scores.

MaskFormer (Cheng et al., NeurIPS 2021), section 3.3; OVSeg (Liang et al., CVPR 2023), section 3.1. B images, N
queries, each of which is a proposal, C channels, D embedding, K classes, H W pixels, h w a quarter of them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import MLP, FeaturePyramidNetwork

from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.proposer import MaskProposer, start_backbone
from ovs_lite.models.backbone import Backbone
from ovs_lite.models.query_decoder import QueryDecoder, sine_positions
from ovs_lite.tensors import products

TEMPERATURE = 100.0  # fixed in OVSeg's released code


@dataclass(frozen=True)
class MaskFormerOutput:
    """One decoder layer's answer. mask_logits: (B, N, h, w). embeddings: (B, N, D), L2-normalised."""

    mask_logits: torch.Tensor
    embeddings: torch.Tensor


class MaskFormer(nn.Module):
    """FPN pixels at stride 4, queries that read the stride-32 map, an embedding and a mask per query.

    no_object: the learned embedding of "no object", (D,). embed_dim: D of the CLIP whose text names the classes.
    """

    def __init__(
        self,
        backbone: Backbone,
        embed_dim: int,
        channels: int = 64,
        num_queries: int = 100,
        layers: int = 6,
        heads: int = 4,
    ):
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(backbone.channels, channels)
        self.pixel_head = nn.Conv2d(channels, channels, 3, padding=1)
        self.to_tokens = nn.Conv2d(backbone.channels[-1], channels, 1)
        self.decoder = QueryDecoder(num_queries, channels, layers, heads, 8 * channels)
        self.norm = nn.LayerNorm(channels)
        self.to_mask = MLP(channels, [channels, channels, channels])
        self.to_embedding = MLP(channels, [4 * channels, embed_dim])
        self.no_object = nn.Parameter(torch.randn(embed_dim) * embed_dim**-0.5)

    def forward(self, images: torch.Tensor) -> list[MaskFormerOutput]:
        """(B, 3, H, W) normalised -> one answer per decoder layer, the final one last; the others are for training."""
        maps = self.backbone(images)
        pixels = self.pyramid({str(i): level for i, level in enumerate(maps)})["0"]
        pixels = self.pixel_head(pixels)  # (B, C, h, w)
        coarse = self.to_tokens(maps[-1])
        positions = sine_positions(*coarse.shape[-2:], coarse.shape[1]).to(coarse)
        states = self.decoder(coarse.flatten(2).transpose(1, 2), positions)
        return [self._answer(self.norm(state), pixels) for state in states]

    def _answer(self, queries: torch.Tensor, pixels: torch.Tensor) -> MaskFormerOutput:
        masks = self.to_mask(queries) @ pixels.flatten(2)
        embeddings = F.normalize(self.to_embedding(queries), dim=-1)
        return MaskFormerOutput(masks.unflatten(2, pixels.shape[-2:]), embeddings)

    def class_logits(self, embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
        """(B, N, D) and (K, D), both L2-normalised -> (B, N, K + 1): 100 x cosine, "no object" last."""
        classes = torch.cat([text_embeddings, F.normalize(self.no_object, dim=0)[None].to(text_embeddings)])
        return TEMPERATURE * products(embeddings, classes)


class MaskFormerProposer(MaskProposer):
    """See `MaskProposer`. Objectness is 1 - p("no object").

    classes: (K, D) L2-normalised text embeddings of the classes that it is trained with.
    fresh: see `start_backbone`.
    """

    recipe = "maskformer"

    def __init__(self, config: MaskFormerConfig, classes: torch.Tensor, fresh: bool = True):
        if classes.ndim != 2 or len(classes) == 0:
            raise ValueError(f"got class embeddings {tuple(classes.shape)}, expected (K, D) with at least one class")
        backbone, sizes = start_backbone(config, fresh), (config.channels, config.queries, config.layers, config.heads)
        super().__init__(config, backbone, MaskFormer(backbone, classes.shape[1], *sizes))
        self.register_buffer("classes", classes.clone())

    @classmethod
    def stored(cls, config: MaskFormerConfig, tensors: dict[str, torch.Tensor]) -> "MaskFormerProposer":
        """A model that `tensors`, its classes among them, will fill."""
        return cls(config, tensors["classes"], fresh=False)

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w) of the last layer, and (B, N) objectness."""
        last = self.network(images)[-1]
        logits = self.network.class_logits(last.embeddings, self.classes)
        return last.mask_logits, 1 - logits.softmax(-1)[..., -1]
