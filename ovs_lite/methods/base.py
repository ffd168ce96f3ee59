"""What every method offers: scores of every class at every pixel, in two steps of which a new word repeats the second.

B images, K classes, D embedding, H W pixels, h w patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.clip.dense import patch_stride


@dataclass(frozen=True)
class PatchFeatures:
    """What most methods keep of B images.

    size: (H, W) of the images.
    patches: (B, D, h, w), un-normalised, in CLIP's joint space.
    """

    size: tuple[int, int]
    patches: torch.Tensor


class Method(nn.Module):
    """A segmenter on top of a CLIP. Subclasses set `name` and define `encode` and `scores`.

    trains: whether there are trained weights next to CLIP's; `trained_part` then gives them.
    templates: prompt set of `ovs_lite.data.prompts`.
    background: score below which a pixel is background, where the authors give one.
    load_released: (path, clip) -> method, reads the layout that the authors released, where that can be read.
    load_own: (checkpoint or None, device) -> method, of a method that brings an encoder of its own and takes no CLIP.
    """

    name = ""
    trains = False
    templates = "vild14"
    background: float | None = None
    load_released: Callable[[Path, Clip], "Method"] | None = None
    load_own: Callable[[str | Path | None, str | torch.device], "Method"] | None = None

    def __init__(self, clip: Clip):
        super().__init__()
        self.clip = clip

    def encode(self, images: torch.Tensor) -> Any:
        """(B, 3, H, W) normalised -> what `scores` needs of them, whatever its texts and options. No gradient."""
        raise TypeError(f"{type(self).__name__} must define encode(images)")

    def scores(self, features: Any, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """What `encode` returned, (K, D) L2-normalised -> (B, K, H, W) scores at input size. No gradient."""
        raise TypeError(f"{type(self).__name__} must define scores(features, text_embeddings)")

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) L2-normalised -> (B, K, H, W) scores at input size. options: of `scores`."""
        return self.scores(self.encode(images), text_embeddings, **options)

    def trained_part(self) -> nn.Module | None:
        """What is trained and stored next to CLIP; None where nothing is."""
        return None


def upsample_to(clip: Clip, scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Scores of patches, (B, K, h, w), upsampled to images of `size` = (H, W), bilinear -> (B, K, H, W).

    The map covers the image padded to whole patches; the padding is cropped after upsampling, so a score lies where its
    patch was.
    """
    stride_h, stride_w = patch_stride(clip.network.visual)
    padded = (scores.shape[2] * stride_h, scores.shape[3] * stride_w)
    return F.interpolate(scores, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
