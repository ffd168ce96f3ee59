"""OpenSeg's two maps of one pyramid: F_s, which masks come from, and F_z, which words are compared with.

OpenSeg (Ghiasi et al., ECCV 2022), sections 3.1, 3.2 and 4.1. B images, N proposals, C channels, D joint embedding,
H W pixels, h w a quarter of them.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.models.fpn import EmbeddingHead
from ovs_lite.regions.pooling import mask_pool
from ovs_lite.tensors import products

TEMPERATURE = 0.07  # where tau of Eq. 2 starts, as CLIP's; the paper does not say
SMALLEST = 1 / MAX_SCALE


class OpenSegNetwork(nn.Module):
    """What OpenSeg trains: the proposer (backbone, pyramid, F_s, queries), F_z's head and the temperature.

    clip_map: from the backbone's last map to the joint space, as its CLIP does it (`clip.dense.map_projection`).
        Departure, for trainings a thousand times shorter than the paper's: its output, enlarged and of unit length, is
        what F_z starts as, and the head, whose last layer starts at 0, adds what it learns. None: the head alone.
    """

    def __init__(self, proposer: OpenSegProposer, embed_dim: int, clip_map: bool = False):
        super().__init__()
        self.proposer = proposer
        self.meaning_head = EmbeddingHead(proposer.config.channels, embed_dim)
        width = proposer.network.features.backbone.channels[-1]
        self.clip_map = nn.Conv2d(width, embed_dim, 1) if clip_map else None
        if clip_map:
            nn.init.zeros_(self.meaning_head[-1].weight)
            nn.init.zeros_(self.meaning_head[-1].bias)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))

    @property
    def temperature(self) -> torch.Tensor:
        """tau of Eq. 2, learned."""
        return self.log_temperature.exp().clamp(min=SMALLEST)

    def looked_at(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """(B, 3, H, W) RGB in [0, 1] -> F (B, C, h, w), mask logits (B, N, h, w), and what F_z starts from, coarse."""
        proposals = self.proposer.network
        maps = proposals.features.backbone(self.proposer.normalise(images))
        features = proposals.features.merge(maps)
        return features, proposals.masks(features), None if self.clip_map is None else self.clip_map(maps[-1])

    def meaning(self, features: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
        """F and the start of `looked_at` -> F_z (B, D, h, w), not normalised."""
        meaning = self.meaning_head(features)
        return meaning if start is None else meaning + _enlarged(start, meaning.shape[-2:])

    def regions(
        self, features: torch.Tensor, masks: torch.Tensor, started: torch.Tensor | None, pooling: str = "sum"
    ) -> torch.Tensor:
        """What `mask_pool` makes of `meaning`, without that map: (B, C, h, w), (B, N, h, w) -> (B, N, D).

        The head's last layer is linear, and so is pooling: regions are pooled first, and are fewer than pixels. That
        saves a tenth of the memory, and next to no time (`tests/benchmarks/bench_region_pooling.py`).
        started: what `start_regions` makes of the start of `looked_at`, (B, N, D), where there is one.
        """
        last = self.meaning_head[-1]
        pooled = mask_pool(self.meaning_head.inner(features), masks, pooling)
        under = mask_pool(torch.ones_like(masks[:, :1]), masks, pooling)  # (B, N, 1), what a bias is counted with
        found = products(pooled, last.weight.flatten(1)) + last.bias * under  # sums that half precision could not hold
        return found if started is None else found + started

    def start_regions(
        self, start: torch.Tensor | None, masks: torch.Tensor, pooling: str = "sum"
    ) -> torch.Tensor | None:
        """What regions start from: the coarse map of `looked_at`, enlarged and pooled under (B, N, h, w): (B, N, D)."""
        return None if start is None else mask_pool(_enlarged(start, masks.shape[-2:]), masks, pooling)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> mask logits (B, N, h, w) and F_z (B, D, h, w), not normalised."""
        features, masks, start = self.looked_at(images)
        return masks, self.meaning(features, start)


def _enlarged(start: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """CLIP's coarse map at the size of F_z, of unit length."""
    start = start.contiguous(memory_format=torch.channels_last)  # a CPU enlarges it twenty times as fast
    return F.normalize(F.interpolate(start, size, mode="bilinear", align_corners=False), dim=1)
