"""OpenSeg's inference: words are compared with regions, and regions give their answer to the pixels of their masks.

Paper: see the folder; section 3.4, Eq. 6, and Table 4. B images, N proposals, K classes, D joint embedding, H W pixels,
h w a quarter of them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import map_projection
from ovs_lite.config import RANDOM
from ovs_lite.methods.base import encodes, scores_from
from ovs_lite.methods.openseg.config import PRESETS, OpenSegConfig
from ovs_lite.methods.openseg.network import OpenSegNetwork
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.own_backbone import OwnBackbone
from ovs_lite.models.text_masks import patch_cosines
from ovs_lite.regions.pooling import mask_pool
from ovs_lite.regions.score_maps import at_stride, masks_at_stride
from ovs_lite.regions.sources import MaskSource, checked_masks


@dataclass(frozen=True)
class OpenSegFeatures:
    """What OpenSeg keeps of B images.

    size: (H, W) of the images.
    masks: s, (B, N, h, w) in [0, 1]; images with fewer than N have masks of zeros.
    pixels: F_z, (B, D, h, w), not normalised.
    """

    size: tuple[int, int]
    masks: torch.Tensor
    pixels: torch.Tensor


class OpenSeg(OwnBackbone):
    """See the module docstring. clip, config: see `OwnBackbone`. fresh: the network starts as the configuration says,
    else a file will bring its weights."""

    name = "openseg"
    masks_of = "openseg-proposals"
    templates = PRESETS["lite"].templates
    lite = PRESETS["lite"]

    def __init__(self, clip: Clip, config: OpenSegConfig | None = None, fresh: bool = False):
        super().__init__(clip, config)
        self.elsewhere: Callable[[np.ndarray], torch.Tensor] | None = None
        self.masks_are = ""
        proposer = OpenSegProposer(self.config, fresh and self.config.start != RANDOM, self.config.tower or "lite")
        self.network = OpenSegNetwork(proposer, clip.embed_dim, self.config.starts_as_clip)
        if fresh and self.config.starts_as_clip:
            self.network.clip_map.load_state_dict(map_projection(clip.network.visual).state_dict())
        self.network.to(clip.device)

    @property
    def proposer(self) -> OpenSegProposer:
        """What finds its masks."""
        return self.network.proposer

    def with_masks(self, source: MaskSource, budget: int = 128, name: str = "") -> "OpenSeg":
        """The same method, weights shared, with masks from elsewhere in place of its proposals, such as the ground
        truth's (Table 4): see `regions.sources`. name: what tells the source from all others on a protocol card."""
        other = copy.copy(self)
        other.elsewhere, other.masks_are = partial(source, budget=budget), name
        return other

    def variant(self) -> str:
        """Whose masks, where they are not its own. Raises ValueError for masks without a name: two functions may have
        the same, and their scores one card."""
        if self.elsewhere is None:
            return ""
        if not self.masks_are:
            raise ValueError("got masks from elsewhere without a name, expected with_masks(source, name=...)")
        return f"masks of {self.masks_are}, {self.elsewhere.keywords['budget']}"

    def scores_each_class_alone(self, **options) -> bool:
        """Yes: attention is a softmax over regions, not over classes."""
        return True

    @encodes
    def encode(self, images: torch.Tensor) -> OpenSegFeatures:
        """(B, 3, H, W) normalised -> masks and F_z."""
        images = images * self.clip.std + self.clip.mean
        logits, pixels = self.network(images)
        masks = logits.float().sigmoid() if self.elsewhere is None else self._from_elsewhere(images, pixels.shape[-2:])
        return OpenSegFeatures(images.shape[-2:], masks, pixels.float())

    def _from_elsewhere(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> another source's masks (B, N, h, w), on the cells of F_z."""
        found, (down, right) = [], (4 * cells - side for cells, side in zip(size, images.shape[-2:], strict=True))
        for image in (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy():
            masks = checked_masks(self.elsewhere(image), image, "the source").to(images.device)
            padded = F.pad(masks, (0, right, 0, down))
            found.append(F.interpolate(padded[None], size, mode="area")[0] if len(masks) else masks.new_zeros(0, *size))
        return pad_sequence(found, batch_first=True)

    @scores_from(OpenSegFeatures)
    def scores(
        self,
        features: OpenSegFeatures,
        text_embeddings: torch.Tensor,
        proposals: bool = True,
        attention: bool = False,
        pooling: str | None = None,
    ) -> torch.Tensor:
        """-> (B, K, H, W): Eq. 6, y = <w, z> . s, bilinear to input size.

        proposals: False compares words with every pixel of F_z and leaves the masks out (Table 4); then cosines.
        attention: weighs masks by each word's softmax over the regions (Eq. 2) instead: where a word looks in training.
        pooling: see `mask_pool`; default as in training.
        """
        text = text_embeddings.to(features.pixels.dtype)
        if proposals:
            cosines = self._cosines(features, text, pooling)
            weights = (cosines / self.network.temperature).softmax(1) if attention else cosines
            found = torch.einsum("bnk,bnhw->bkhw", weights, features.masks)
        else:
            found = patch_cosines(features.pixels, text)
        return at_stride(found, features.size)

    @torch.no_grad()
    def regions(
        self, features: OpenSegFeatures, text_embeddings: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Masks, and the softmax over classes of their cosines by the temperature that was learned for regions and
        words. See `Method.regions`. Departure: the paper names pixels only, by the sum of cosines (Eq. 6)."""
        cosines = self._cosines(features, text_embeddings.to(features.pixels.dtype))
        masks = masks_at_stride(features.masks, features.size)
        return list(zip(masks, (cosines / self.network.temperature).softmax(2), strict=True))

    def _cosines(self, features: OpenSegFeatures, text: torch.Tensor, pooling: str | None = None) -> torch.Tensor:
        """Of every region with every class, (B, N, K)."""
        pooled = mask_pool(features.pixels, features.masks, pooling or self.config.pooling)
        return F.normalize(pooled, dim=2) @ text.T
