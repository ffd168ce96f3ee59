"""Region embeddings: a frozen CLIP's map at several input sizes, adapted, pooled under masks.

Uni-OVSeg (Wang et al., 2024), section 3.3, Eq. 5, "Multi-scale ensemble", and appendix A. The order of pooling, adapter
and visual projection is not told consistently: Eq. 5 pools first and projects then; the adapter "refines pixel
features". Where the projection is one matrix, as in the miniature, pooling and projecting commute; so here CLIP's
projected map is adapted and then pooled, which every CLIP with a dense map can do. Before the projection the same
adapter was no better in the miniature (63.1 and 64.6 % of regions named right, once each).
B images, N masks, S input scales, D joint embedding, H W pixels, h w places of a map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import patch_stride
from ovs_lite.methods.uniovseg.adapter import MultiScaleAdapter
from ovs_lite.methods.uniovseg.alignment_config import AlignmentConfig
from ovs_lite.regions.pooling import mask_pool


def mask_weights(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(..., N, H, W) masks, bool or soft in [0, 1] -> (..., N, h, w) float32 that sum to 1, for `size` = (h, w).

    As the released code pools: resized bilinearly, 1 where above 0.5, divided by its area. Departure: a mask of which
    nothing is left so, as it is smaller than the map's places, counts by the share that it covers of each place; there
    its embedding would be 0. A mask of zeros stays zeros.
    """
    given = masks.float().reshape(-1, 1, *masks.shape[-2:])
    found = (F.interpolate(given, size, mode="bilinear", align_corners=False) > 0.5).float()
    vanished = ~found.flatten(1).any(1)
    if vanished.any():
        found[vanished] = F.interpolate(given[vanished], size, mode="area")
    found = found / found.sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return found.reshape(*masks.shape[:-2], *size)


def scaled_sizes(clip: Clip, height: int, width: int, short_sides: Sequence[int]) -> list[tuple[int, int]]:
    """The sizes at which an image of H x W is seen: its short side as given, its shape kept, both rounded to whole
    patches, so that nothing is padded and masks lie where their pixels do."""
    steps = patch_stride(clip.network.visual)
    factors = [short / min(height, width) for short in short_sides]
    return [
        tuple(max(1, round(side * factor / step)) * step for side, step in zip((height, width), steps, strict=True))
        for factor in factors
    ]


@torch.no_grad()
def scaled_maps(clip: Clip, images: torch.Tensor, short_sides: Sequence[int], mode: str = "last") -> list[torch.Tensor]:
    """(B, 3, H, W) normalised -> S maps (B, D, h, w) of CLIP's embeddings, one for each short side in pixels. No
    gradient. Images are resized bicubically. mode: see `Clip.dense`."""
    found = []
    for size in scaled_sizes(clip, *images.shape[-2:], short_sides):
        same = size == tuple(images.shape[-2:])
        seen = images if same else F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        found.append(clip.dense(seen, mode).float())
    return found


def pooled_regions(maps: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """S maps (B, D, h, w), S weights (B, N, h, w) of `mask_weights` -> S times (B, N, D), L2-normalised; 0 stays 0."""
    return [F.normalize(mask_pool(seen, some), dim=-1) for seen, some in zip(maps, weights, strict=True)]


def region_embeddings(maps: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """As `pooled_regions`, the mean over the scales: (B, N, D). Its product with a text is the mean of the cosines."""
    return torch.stack(pooled_regions(maps, weights)).mean(0)


class AlignedRegions(nn.Module):
    """A frozen CLIP and its adapter behind one call.

    short_sides: input sizes in pixels, one for each of the adapter's scales. mode: of CLIP's map. templates: the
    sentences that entities were put into in training. Raises ValueError for another number of sizes.
    """

    def __init__(self, clip: Clip, adapter: MultiScaleAdapter, short_sides: Sequence[int], mode: str, templates: str):
        super().__init__()
        if len(adapter) != len(short_sides):
            raise ValueError(f"got {len(short_sides)} sizes for an adapter of {len(adapter)} scales, expected as many")
        self.clip, self.adapter = clip.requires_grad_(False), adapter.to(clip.device)
        self.short_sides, self.mode, self.templates = tuple(short_sides), mode, templates

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) normalised -> CLIP's own S maps, before the adapter; see `scaled_maps`."""
        return scaled_maps(self.clip, images, self.short_sides, self.mode)

    def forward(self, images: torch.Tensor, masks: torch.Tensor, adapted: bool = True) -> torch.Tensor:
        """(B, 3, H, W) normalised, (B, N, H, W) masks -> (B, N, D), see `region_embeddings`.

        adapted: False for the paper's baseline (section 3.2), CLIP pooled as it is.
        """
        maps = self.maps(images)
        weights = [mask_weights(masks, seen.shape[-2:]) for seen in maps]
        return region_embeddings(self.adapter(maps) if adapted else maps, weights)


def aligned_regions(clip: Clip, config: AlignmentConfig) -> AlignedRegions:
    """A CLIP with a new adapter."""
    adapter = MultiScaleAdapter(len(config.short_sides), clip.embed_dim, config.rank, activation=config.activation)
    return AlignedRegions(clip, adapter, config.short_sides, config.mode, config.templates)
