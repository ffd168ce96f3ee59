"""OpenSeg's mask proposals behind the kit's one call. B images, N proposals, H W pixels, h w a quarter of them."""

import torch

from ovs_lite.methods.openseg.network import OpenSegProposals
from ovs_lite.methods.proposer import MaskProposer, ProposalConfig, start_backbone


class OpenSegProposer(MaskProposer):
    """See `MaskProposer`. There is no objectness: every proposal counts. fresh: see `start_backbone`."""

    recipe = "openseg-proposals"

    def __init__(self, config: ProposalConfig, fresh: bool = True):
        backbone, side = start_backbone(config, fresh), -(-config.image_size // 4)
        sizes = (config.channels, config.queries, config.layers, config.heads)
        super().__init__(config, backbone, OpenSegProposals(backbone, *sizes, grid=(side, side)))

    @classmethod
    def stored(cls, config: ProposalConfig, tensors: dict[str, torch.Tensor]) -> "OpenSegProposer":
        """A model that `tensors` will fill."""
        return cls(config, fresh=False)

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w), no objectness."""
        return self.network(images), None
