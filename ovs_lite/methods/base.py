"""What every method offers: scores of every class at every pixel.

B images, K classes, D embedding, H W pixels, h w patches.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import patch_stride
from ovs_lite.models.text_masks import patch_cosines


class Method(nn.Module):
    """A segmenter on top of a CLIP. Subclasses set `name` and define `predict`.

    trains: whether there are trained weights next to CLIP's; `trained_part` then gives them.
    templates: prompt set of `ovs_lite.data.prompts`.
    background: score below which a pixel is background, where the authors give one.
    load_released: (path, clip) -> method, reads the layout that the authors released, where that can be read.
    """

    name = ""
    trains = False
    templates = "vild14"
    background: float | None = None
    load_released = None

    def __init__(self, clip: Clip):
        super().__init__()
        self.clip = clip

    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) L2-normalised -> (B, K, H, W) scores at input size."""
        raise TypeError(f"{type(self).__name__} must define predict(images, text_embeddings)")

    def trained_part(self) -> nn.Module | None:
        """What is trained and stored beside CLIP; None where nothing is."""
        return None


def dense_scores(clip: Clip, images: torch.Tensor, text_embeddings: torch.Tensor, mode: str) -> torch.Tensor:
    """Cosine of every patch with every class, enlarged to the pixels (bilinear): (B, K, H, W) in [-1, 1]."""
    return to_pixels(clip, patch_cosines(clip.dense(images, mode), text_embeddings), images.shape[-2:])


def to_pixels(clip: Clip, scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Scores of patches, (B, K, h, w), enlarged to pictures of `size` = (H, W), bilinear -> (B, K, H, W).

    The map covers the picture padded to whole patches; the padding is cut off after enlarging, so a score lies where
    its patch was.
    """
    stride_h, stride_w = patch_stride(clip.network.visual)
    padded = (scores.shape[2] * stride_h, scores.shape[3] * stride_w)
    return F.interpolate(scores, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
