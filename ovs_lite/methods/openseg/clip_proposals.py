"""CLIP with OpenSeg's proposals: CLIP's own feature map names the regions that OpenSeg found. Nothing of it is trained.

Paper: OpenSeg (Ghiasi et al., ECCV 2022), section 4.3, "ALIGN w/proposal baseline": the pre-trained model classifies
each proposal, and proposals are put together as OpenSeg does (Eq. 6). B images, N proposals, K classes, D joint
embedding, H W pixels, h w places of CLIP's map.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ovs_lite.clip import Clip
from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.network import OpenSegNetwork
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.own_backbone import stored_config
from ovs_lite.regions.pooling import mask_pool


@dataclass(frozen=True)
class RegionFeatures:
    """What is kept of B images: their (H, W), masks (B, N, h, w) in [0, 1], and regions (B, N, D), not normalised."""

    size: tuple[int, int]
    masks: torch.Tensor
    regions: torch.Tensor


class ClipProposals(Method):
    """See the module docstring. openseg: whose masks are used; of a file by `load_method`."""

    name = "clip-proposals"
    trains = True  # its masks are OpenSeg's
    weights_of = "openseg"
    masks_of = "openseg-proposals"
    default_clip = ("ConvNeXt-Lite", "lite")  # which OpenSeg's backbone starts from
    tied_to = ()  # masks know no words

    def __init__(self, clip: Clip, network: OpenSegNetwork | None = None):
        super().__init__(clip)
        self.network = (OpenSeg(clip).network if network is None else network).to(clip.device)

    @classmethod
    def stored(cls, clip: Clip, about: dict[str, str]) -> "ClipProposals":
        """With the network that a file of OpenSeg's weights was saved with."""
        config = stored_config(OpenSeg.lite, about)
        proposer = OpenSegProposer(config, fresh=False)
        return cls(clip, OpenSegNetwork(proposer, int(about["embed_dim"]), config.starts_as_clip))

    @property
    def proposer(self) -> OpenSegProposer:
        """OpenSeg's."""
        return self.network.proposer

    def trained_part(self) -> OpenSegNetwork:
        """OpenSeg's network, of which only the masks are used."""
        return self.network

    @encodes
    def encode(self, images: torch.Tensor) -> RegionFeatures:
        """(B, 3, H, W) normalised -> OpenSeg's masks, and CLIP's last feature map pooled under them."""
        dense = self.clip.dense(images, "last").float()
        masks = self.network.proposer(images * self.clip.std + self.clip.mean)[0]
        down, right = (-side % step for side, step in zip(images.shape[-2:], self.clip.stride, strict=True))
        small = F.interpolate(F.pad(masks, (0, right, 0, down)), dense.shape[-2:], mode="area")  # the map's padding
        return RegionFeatures(images.shape[-2:], masks, mask_pool(dense, small))

    @scores_from(RegionFeatures)
    def scores(self, features: RegionFeatures, text_embeddings: torch.Tensor) -> torch.Tensor:
        """-> (B, K, H, W): Eq. 6, y = <w, z> . s."""
        return torch.einsum("bnk,bnhw->bkhw", self._cosines(features, text_embeddings), features.masks)

    @torch.no_grad()
    def regions(
        self, features: RegionFeatures, text_embeddings: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Masks, and CLIP's softmax over classes of each. See `Method.regions`."""
        probs = self.clip.probabilities(self._cosines(features, text_embeddings))
        return list(zip(features.masks, probs, strict=True))

    def _cosines(self, features: RegionFeatures, text: torch.Tensor) -> torch.Tensor:
        """Of every region with every class, (B, N, K)."""
        return F.normalize(features.regions, dim=2) @ text.T.to(features.regions.dtype)


METHOD = ClipProposals
