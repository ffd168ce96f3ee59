"""What every method offers: scores of every class at every pixel.

B images, K classes, D embedding, H W pixels, h w patches.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import patch_stride


class Method(nn.Module):
    """A segmenter on top of a CLIP. Subclasses set `name` and define `predict`."""

    name = ""

    def __init__(self, clip: Clip):
        super().__init__()
        self.clip = clip

    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) L2-normalised -> (B, K, H, W) scores at input size."""
        raise TypeError(f"{type(self).__name__} must define predict(images, text_embeddings)")


def dense_scores(clip: Clip, images: torch.Tensor, text_embeddings: torch.Tensor, mode: str) -> torch.Tensor:
    """Cosine of every patch with every class, enlarged to the pixels (bilinear): (B, K, H, W) in [-1, 1].

    The map covers the picture padded to whole patches; the padding is cut off after enlarging, so a score lies where
    its patch was.
    """
    height, width = images.shape[-2:]
    patches = F.normalize(clip.dense(images, mode), dim=1)  # (B, D, h, w)
    cosine = torch.einsum("bdhw,kd->bkhw", patches, text_embeddings)
    stride_h, stride_w = patch_stride(clip.network.visual)
    padded = (cosine.shape[2] * stride_h, cosine.shape[3] * stride_w)
    return F.interpolate(cosine, padded, mode="bilinear", align_corners=False)[..., :height, :width]
