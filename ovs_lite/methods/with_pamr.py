"""PAMR for any method: TCL's Table 3 asks what the refinement alone is worth.

Scores are refined at the resolution at which TCL refines its masks, a quarter of a patch's side (Cha et al., CVPR 2023,
appendix D, Table 5), and upsampled again. B images, K classes, D joint embedding, H W pixels.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.pamr import neighbour_weights, pamr
from ovs_lite.regions.score_maps import enlarged

CELLS = 4  # per side of a patch


@dataclass(frozen=True)
class PamrFeatures:
    """size: (H, W). small: the images at PAMR's resolution. features: of the method itself."""

    size: tuple[int, int]
    small: torch.Tensor
    features: Any

    @cached_property
    def weights(self) -> list[torch.Tensor]:
        """What PAMR reads of the images; kept for other words."""
        return neighbour_weights(self.small)


class WithPamr(Method):
    """A method whose scores go through `ovs_lite.pamr.pamr`. PAMR is linear in them: cosines may stay cosines."""

    def __init__(self, method: Method):
        super().__init__(method.clip)
        self.method, self.name = method, f"{method.name} + PAMR"
        self.templates, self.background = method.templates, method.background

    def scores_each_class_alone(self, **options) -> bool:
        """As the method's: PAMR refines every class for itself."""
        return self.method.scores_each_class_alone(**options)

    @encodes
    def encode(self, images: torch.Tensor) -> PamrFeatures:
        """(B, 3, H, W) normalised -> the method's own features, and the images that guide PAMR."""
        size = images.shape[-2:]
        cells = [-(-CELLS * side // step) for side, step in zip(size, self.clip.stride, strict=True)]
        small = F.interpolate(images, cells, mode="bilinear", align_corners=True)
        return PamrFeatures(size, small, self.method.encode(images))

    @scores_from(PamrFeatures)
    def scores(self, features: PamrFeatures, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """-> (B, K, H, W) refined scores of the (K, D) classes. options: the method's own."""
        scores = self.method.scores(features.features, text_embeddings, **options)
        cells = F.interpolate(scores, features.small.shape[-2:], mode="bilinear", align_corners=False)
        refined = pamr(features.small, cells, weights=features.weights)
        return enlarged(refined, features.size)
