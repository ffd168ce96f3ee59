"""CLIP-CAM: the pre-trained model's own dense similarity, the weakest baseline of OpenSeg's Fig. 5.

Paper: OpenSeg (Ghiasi et al., ECCV 2022), section 4.3, "ALIGN baseline": the feature map before global average pooling,
compared with each class name, argmax per pixel. The paper uses ALIGN, whose weights are not public; here any open_clip
model of `ovs_lite.clip.dense.FAMILIES`. Departure: where attention pools the image, the patch tokens of the unchanged
last layer take the map's place. Everything is frozen, nothing is trained.
"""

import torch

from ovs_lite.methods.base import Method, PatchFeatures, encodes, scores_from, upsample_to
from ovs_lite.models.text_masks import patch_cosines


class ClipCam(Method):
    """See the module docstring."""

    name = "clip-cam"

    def scores_each_class_alone(self, **options) -> bool:
        """Yes: each cosine is of one class."""
        return True

    @encodes
    def encode(self, images: torch.Tensor) -> PatchFeatures:
        """(B, 3, H, W) normalised -> patches of CLIP's last layer."""
        return PatchFeatures(images.shape[-2:], self.clip.dense(images, "last"))

    @scores_from(PatchFeatures)
    def scores(self, features: PatchFeatures, text_embeddings: torch.Tensor) -> torch.Tensor:
        """-> (B, K, H, W) cosines of patches with the (K, D) classes in [-1, 1], bilinear to input size."""
        return upsample_to(self.clip, patch_cosines(features.patches, text_embeddings), features.size)


METHOD = ClipCam
