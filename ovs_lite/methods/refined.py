"""PAMR for any method: TCL's Table 3 asks what the refinement alone is worth.

Scores are refined where TCL refines its masks, at a quarter of a patch's side (Cha et al., CVPR 2023, appendix C), and
enlarged again. B images, K classes, D joint embedding, H W pixels.
"""

import torch
import torch.nn.functional as F

from ovs_lite.clip.dense import patch_stride
from ovs_lite.methods.base import Method
from ovs_lite.pamr import pamr

CELLS = 4  # per side of a patch


class Refined(Method):
    """A method whose scores go through `ovs_lite.pamr.pamr`. PAMR is linear in them: cosines may stay cosines."""

    def __init__(self, method: Method):
        super().__init__(method.clip)
        self.method, self.name, self.templates = method, f"{method.name} + PAMR", method.templates

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) -> (B, K, H, W). options: the method's own."""
        scores = self.method.predict(images, text_embeddings, **options)
        strides = patch_stride(self.clip.network.visual)
        cells = [-(-CELLS * side // step) for side, step in zip(images.shape[-2:], strides, strict=True)]
        small = F.interpolate(images, cells, mode="bilinear", align_corners=True)
        refined = pamr(small, F.interpolate(scores, cells, mode="bilinear", align_corners=False))
        return F.interpolate(refined, images.shape[-2:], mode="bilinear", align_corners=False)
