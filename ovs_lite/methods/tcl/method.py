"""TCL's method: a frozen CLIP, the grounder on top of it, and how masks are inferred. Paper: see the folder.

B images, K classes, D joint embedding, H W pixels; masks have a quarter of a patch's side.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import penultimate_tokens, project_patches, value_path
from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.methods.tcl.grounder import BIAS, SCALE, TextGrounder
from ovs_lite.models.text_masks import mask_logits
from ovs_lite.pamr import neighbour_weights, pamr
from ovs_lite.regions.score_maps import enlarged, side_by_side

KP_WEIGHT = 0.3
BARE_BACKGROUND = 0.5  # the released threshold without PAMR


@dataclass(frozen=True)
class TclFeatures:
    """What TCL keeps of B images.

    images: (B, 3, H, W) normalised, padded to whole patches.
    inside: rows and columns of these that are no padding.
    pixels: (B, D, 4h, 4w) from the grounder, not normalised.
    patches: (B, D, h, w) of the frozen CLIP, not normalised.
    """

    images: torch.Tensor
    inside: tuple[slice, slice]
    pixels: torch.Tensor
    patches: torch.Tensor

    @cached_property
    def guide(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The images at PAMR's resolution, that of the pixels, and what it reads of them; kept for other words."""
        small = F.interpolate(self.images, self.pixels.shape[-2:], mode="bilinear", align_corners=True)
        return small, neighbour_weights(small)


class Tcl(Method):
    """See the module docstring. clip: needs open_clip's ViT; its weights are the start of the grounder's."""

    name = "tcl"
    trains = True
    background = 0.4  # the released threshold with PAMR

    @classmethod
    def load_released(cls, path: Path, clip: Clip) -> "Tcl":
        """Read tcl.pth, see `released.load_official_tcl`."""
        from ovs_lite.methods.tcl.released import load_official_tcl

        return load_official_tcl(path, clip)

    def __init__(self, clip: Clip):
        super().__init__(clip)
        clip.requires_grad_(False)
        self.grounder = TextGrounder(clip.network.visual).to(clip.device)

    def background_below(self, refine: bool = True, **options) -> float:
        """The released thresholds: 0.4 with PAMR, 0.5 without."""
        return self.background if refine else BARE_BACKGROUND

    def trained_part(self) -> TextGrounder:
        """The grounder."""
        return self.grounder

    def pixel_embeddings(self, images: torch.Tensor, train_block: bool = False) -> torch.Tensor:
        """(B, 3, H, W) normalised, whole patches -> (B, D, 4h, 4w) not normalised, with gradient to the grounder."""
        with torch.no_grad():
            tokens, grid = penultimate_tokens(self.clip.network.visual, images)
        return self.grounder(tokens, grid, train_block)

    def scores_each_class_alone(self, **options) -> bool:
        """Yes: every mask is one class's, PAMR's result too."""
        return True

    @encodes
    def encode(self, images: torch.Tensor) -> TclFeatures:
        """(B, 3, H, W) normalised -> embeddings of pixels and of the frozen CLIP's patches.

        Sides that are no multiple of a patch are padded with zeros on both sides; `scores` crops them again.
        """
        visual = self.clip.network.visual
        left, right, top, bottom = _margins(images, self.clip.stride)
        inside = slice(top, top + images.shape[-2]), slice(left, left + images.shape[-1])
        images = F.pad(images, (left, right, top, bottom))
        tokens, grid = penultimate_tokens(visual, images)
        patches = project_patches(visual, value_path(visual.transformer.resblocks[-1], tokens), grid)
        return TclFeatures(images, inside, self.grounder(tokens, grid), patches)

    @scores_from(TclFeatures)
    def scores(
        self,
        features: TclFeatures,
        text_embeddings: torch.Tensor,
        refine: bool = True,
        kp_weight: float = KP_WEIGHT,
        kp_variant: str = "released",
    ) -> torch.Tensor:
        """-> (B, K, H, W) probabilities, each of the (K, D) classes for itself.

        refine: PAMR.
        kp_weight: share of the frozen CLIP's masks (Eq. 15), in [0, 1].
        kp_variant: "released" gives these the start values of Eq. 5, "paper" the learned ones.
        Raises ValueError for a kp_weight outside and for another variant.
        """
        if not 0 <= kp_weight <= 1:
            raise ValueError(f"got kp_weight={kp_weight!r}, expected 0 (none of the frozen CLIP's masks) to 1")
        if kp_variant not in ("released", "paper"):
            raise ValueError(f"got kp_variant={kp_variant!r}, expected released or paper")
        grounder = self.grounder
        masks = mask_logits(features.pixels, text_embeddings, grounder.scale, grounder.bias).sigmoid()
        if refine:
            small, weights = features.guide
            masks = pamr(small, masks, weights=weights)
        if kp_weight:
            start = (SCALE, BIAS) if kp_variant == "released" else (grounder.scale, grounder.bias)
            kept = mask_logits(features.patches, text_embeddings, *start).sigmoid()
            masks = side_by_side(masks).lerp(enlarged(kept, masks.shape[-2:]), kp_weight)
        return enlarged(masks, features.images.shape[-2:])[(..., *features.inside)]


def _margins(images: torch.Tensor, stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: what makes both sides multiples of the stride; an odd pixel goes to the end."""
    down, across = (-side % step for side, step in zip(images.shape[-2:], stride, strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2
