"""OpenSeg's inference: words are compared with regions, and regions give their answer to the pixels of their masks.

Paper: see the folder; section 3.4, Eq. 6, and Table 4. B images, N proposals, K classes, D joint embedding, H W pixels,
h w a quarter of them.
"""

import json
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import map_projection
from ovs_lite.config import flatten, override, to_dict
from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.methods.openseg.config import PRESETS, OpenSegConfig
from ovs_lite.methods.openseg.network import OpenSegNetwork
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.models.text_masks import patch_cosines
from ovs_lite.regions.pooling import mask_pool


@dataclass(frozen=True)
class OpenSegFeatures:
    """What OpenSeg keeps of B images.

    size: (H, W) of the images.
    masks: s, (B, N, h, w) in [0, 1].
    pixels: F_z, (B, D, h, w), not normalised.
    """

    size: tuple[int, int]
    masks: torch.Tensor
    pixels: torch.Tensor

    def with_masks(self, masks: torch.Tensor) -> "OpenSegFeatures":
        """The same with masks from elsewhere, (B, N, H, W) in [0, 1], such as the ground truth's (Table 4)."""
        return replace(self, masks=F.interpolate(masks.float(), self.pixels.shape[-2:], mode="area"))


class OpenSeg(Method):
    """See the module docstring. clip: only its text tower is used, frozen.

    config: sizes of the network. fresh: its backbone starts from weights, else a file will bring them.
    """

    name = "openseg"
    trains = True
    templates = "bare"
    default_clip = ("ConvNeXt-Lite", "lite")  # whose image tower the backbone starts from
    tied_to = ("text",)

    def __init__(self, clip: Clip, config: OpenSegConfig | None = None, fresh: bool = False):
        super().__init__(clip)
        self.config = config or PRESETS["lite"]
        clip.requires_grad_(False)
        self.network = OpenSegNetwork(OpenSegProposer(self.config, fresh), clip.embed_dim, self.config.starts_as_clip)
        if fresh and self.config.starts_as_clip:
            self.network.clip_map.load_state_dict(map_projection(clip.network.visual).state_dict())
        self.network.to(clip.device)

    @classmethod
    def stored(cls, clip: Clip, about: dict[str, str]) -> "OpenSeg":
        """Of the sizes that a file of weights was saved with."""
        return cls(clip, stored_config(about))

    def about(self) -> dict[str, str]:
        """The sizes, for a file of weights."""
        return {"config": json.dumps(to_dict(self.config)), "embed_dim": str(self.clip.embed_dim)}

    def trained_part(self) -> OpenSegNetwork:
        """Proposals, F_z's head and the temperature."""
        return self.network

    @encodes
    def encode(self, images: torch.Tensor) -> OpenSegFeatures:
        """(B, 3, H, W) normalised -> masks and F_z."""
        logits, pixels = self.network(images * self.clip.std + self.clip.mean)
        return OpenSegFeatures(images.shape[-2:], logits.float().sigmoid(), pixels.float())

    @scores_from(OpenSegFeatures)
    def scores(
        self, features: OpenSegFeatures, text_embeddings: torch.Tensor, proposals: bool = True, pooling: str = "sum"
    ) -> torch.Tensor:
        """-> (B, K, H, W): Eq. 6, y = <w, z> . s, bilinear to input size.

        proposals: False compares words with every pixel of F_z and leaves the masks out (Table 4); then cosines.
        pooling: see `mask_pool`.
        """
        if proposals:
            regions = F.normalize(mask_pool(features.pixels, features.masks, pooling), dim=2)
            found = torch.einsum("bnd,kd,bnhw->bkhw", regions, text_embeddings.to(regions.dtype), features.masks)
        else:
            found = patch_cosines(features.pixels, text_embeddings.to(features.pixels.dtype))
        return F.interpolate(found, features.size, mode="bilinear", align_corners=False)


def stored_config(about: dict[str, str]) -> OpenSegConfig:
    """The settings that a file of weights was saved with. Raises KeyError or ValueError where it has none."""
    return override(PRESETS["lite"], dict(flatten(json.loads(about["config"]))))
