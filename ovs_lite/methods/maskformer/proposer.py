"""MaskFormer's proposals behind the kit's one call. B images, N proposals, K classes, D embedding, H W pixels."""

import torch

from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.network import MaskFormer
from ovs_lite.methods.proposer import MaskProposer, start_backbone


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
