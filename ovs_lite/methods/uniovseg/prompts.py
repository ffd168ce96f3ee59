"""Prompts as tokens: two corners and a learned token for every mask that a prompt may mean.

Uni-OVSeg (Wang et al., 2024), section 3, Eq. 2, and appendix A. B images, P prompts of each, K masks of each prompt,
C channels, h w a quarter of the image's sides. Boxes are XYXY in [0, 1] of the image's width and height.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.tensors import at_least_float32

CORNERS = 2
KINDS = ("point", "box")


class PromptEncoder(nn.Module):
    """A prompt -> its corners' tokens and K mask tokens.

    Corner = encoding of its place + what says which corner + what says point or box + the image's features at the
    prompt's centre. Points have K = `granularities` learned mask tokens, one for each level of granularity, boxes one
    of their own: a box means one thing. As the released model adds them up; there a box shares a fifth token of points,
    and points have one more learned vector, which their kind's already holds.
    """

    def __init__(self, channels: int, granularities: int):
        super().__init__()
        self.corner_embedding = nn.Parameter(torch.randn(CORNERS, channels))
        self.kind_embedding = nn.Parameter(torch.randn(len(KINDS), channels))
        sizes = {"point": granularities, "box": 1}
        self.mask_embedding = nn.ParameterDict({kind: torch.randn(size, channels) for kind, size in sizes.items()})

    def forward(
        self, boxes: torch.Tensor, kind: str, pixels: torch.Tensor, encoded: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """(B, P, 4) boxes, for points those of `small_boxes`; "point" or "box"; pixel features (B, C, h, w); and the
        encoding of places, (..., 2) -> (..., C). Returns tokens (B, P, 2 + K, C)."""
        corners = boxes.unflatten(-1, (CORNERS, 2))  # top left, bottom right
        content = _features_at(pixels, corners.mean(-2))[:, :, None]  # (B, P, 1, C)
        embeddings = self.corner_embedding + self.kind_embedding[KINDS.index(kind)]
        placed = encoded(corners) + embeddings + content
        masks = self.mask_embedding[kind].expand(*boxes.shape[:2], -1, -1).to(placed)
        return torch.cat([placed, masks], 2)


def small_boxes(points: torch.Tensor, side: float) -> torch.Tensor:
    """(..., 2) points (x, y) in [0, 1] -> boxes (..., 4) of that side around them, which may stand out of the image.

    Section 3: "Each point is converted into an anchor box with a predefined width and height". Departure: the side is a
    share of the width and of the height, as places are; the released box is square in pixels.
    """
    return torch.cat([points - side / 2, points + side / 2], -1)


def _features_at(pixels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w), (B, P, 2) -> bilinear features (B, P, C), outside those of the border."""
    grid = 2 * places[:, None] - 1
    found = F.grid_sample(at_least_float32(pixels), grid.to(pixels.device), padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)
