"""CLIP-CAM: the pre-trained model's own dense similarity, the weakest baseline of OpenSeg's Fig. 5.

Paper: OpenSeg (Ghiasi et al., ECCV 2022), section 4.2: the feature map before global average pooling, compared with
each class name, argmax per pixel. The paper uses ALIGN, whose weights are not public; here any open_clip model.
Departure: with a ViT, which pools by attention into a class token, the patch tokens of the unchanged last block take
the map's place. Everything is frozen, nothing is trained.
"""

import torch

from ovs_lite.methods.base import Method, dense_scores


class ClipCam(Method):
    """See the module docstring."""

    name = "clip-cam"

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) -> (B, K, H, W) cosines of patches with classes, bilinear to input size."""
        return dense_scores(self.clip, images, text_embeddings, "last")


METHOD = ClipCam
