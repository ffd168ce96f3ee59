"""Multi-scale deformable attention in plain PyTorch: every query reads a few places of every level.

Deformable DETR (Zhu et al., ICLR 2021), section 4.1, Eq. 3. B images, S pixels of all levels, one level after the other
and each row by row, Q queries, d channels of a head.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.tensors import at_least_float32


def deformable_attention(
    value: torch.Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of bilinear samples of all levels, Eq. 3 without its linear layers: (B, Q, heads * d).

    value: (B, S, heads, d).
    spatial_shapes: (H, W) of every level, whose products sum to S.
    locations: (B, Q, heads, levels, points, 2), (x, y) in [0, 1] of a level's width and height; its first pixel's
        centre lies at 0.5 / W. Outside the map it is zero and fades within half a pixel of its edge, as
        `grid_sample` with zeros and align_corners=False.
    weights: (B, Q, heads, levels, points), any numbers; the module's sum to 1.
    The result has the value's type; half precision, too coarse for places, is computed as float32. A sample is a
    weighted sum of four rows of a table, so one `embedding_bag` sums all of them and no sample is ever stored.
    Raises ValueError for shapes that do not fit together.
    """
    _check(value, spatial_shapes, locations, weights)
    rows = at_least_float32(value)
    weights, locations = weights.to(rows.dtype), locations.to(rows.dtype)
    with torch.autocast(value.device.type, enabled=False):
        maps = rows.split([height * width for height, width in spatial_shapes], 1)
        framed = [
            F.pad(level.unflatten(1, shape), (0, 0, 0, 0, 1, 1, 1, 1)).flatten(1, 2)  # zeros outside
            for level, shape in zip(maps, spatial_shapes, strict=True)
        ]
        table = torch.cat(framed, 1)  # (B, framed S, heads, d)
        corners, shares = _corners(spatial_shapes, locations, weights)
        corners = corners + _starts(table.shape[:2], corners.device).view(-1, 1, 1, 1, 1, 1)
        corners = corners * table.shape[2] + _numbers(table.shape[2], corners.device).view(-1, 1, 1, 1)
        bags = corners.flatten(0, 2).flatten(1), table.flatten(0, 2)
        found = F.embedding_bag(*bags, per_sample_weights=shares.flatten(0, 2).flatten(1), mode="sum")
    return found.view(*locations.shape[:3], value.shape[3]).flatten(2).to(value.dtype)


def _corners(
    shapes: Sequence[tuple[int, int]], locations: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of an image's framed levels and what they count for, both (B, Q, heads, 4 corners, levels, points)."""
    device = locations.device
    sizes = torch.tensor([[width, height] for height, width in shapes], device=device, dtype=locations.dtype)[:, None]
    strides = torch.tensor([width + 2 for _, width in shapes], device=device, dtype=torch.int32)[:, None]
    areas = torch.tensor([0, *((height + 2) * (width + 2) for height, width in shapes[:-1])], device=device)
    first = areas.cumsum(0).int()[:, None] + strides + 1
    places = torch.minimum((locations * sizes - 0.5).clamp(min=-1), sizes)  # what lies further out is zero, too
    low = torch.minimum(places.detach().floor(), sizes - 1).nan_to_num()  # a NaN is no row of the table
    right, down = (places - low).unbind(-1)
    x, y = low.int().unbind(-1)
    below = down * weights
    above = weights - below
    above_right, below_right = above * right, below * right
    shares = [above - above_right, above_right, below - below_right, below_right]
    top = y * strides + x + first
    return torch.stack([top, top + 1, top + strides, top + strides + 1], 3), torch.stack(shares, 3)


def _numbers(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(count, dtype=torch.int32, device=device)


def _starts(sizes: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where each image's rows begin; 64 bits only where 32 do not hold them."""
    return sizes[1] * torch.arange(
        sizes[0], device=device, dtype=torch.int64 if math.prod(sizes) > 2**24 else torch.int32
    )


def _check(
    value: torch.Tensor, shapes: Sequence[tuple[int, int]], locations: torch.Tensor, weights: torch.Tensor
) -> None:
    pixels = sum(height * width for height, width in shapes)
    fits = value.ndim == 4 and locations.ndim == 6 and value.shape[1] == pixels and locations.shape[-1] == 2
    fits = fits and locations.shape[:-1] == weights.shape and locations.shape[3] == len(shapes)
    if not fits or locations.shape[::2][:2] != value.shape[::2]:
        given = f"{tuple(value.shape)}, {list(shapes)}, {tuple(locations.shape)}, {tuple(weights.shape)}"
        expected = "(B, S, heads, d), sizes of the levels that sum to S, (B, Q, heads, levels, points, 2) and the same"
        raise ValueError(f"got {given}, expected {expected} without the 2")


class MultiScaleDeformableAttention(nn.Module):
    """Multi-scale deformable attention: places and weights are linear functions of the query (Eq. 3).

    Initialised as Deformable DETR's: the heads start looking in as many directions, the points of each at 1, 2, ...
    pixels, all with the same weight.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int):
        super().__init__()
        self.sizes = heads, levels, points
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.offsets = nn.Linear(channels, 2 * heads * levels * points)
        self.weights = nn.Linear(channels, heads * levels * points)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
        for tensor in (self.value.bias, self.output.bias, self.offsets.weight, *self.weights.parameters()):
            nn.init.zeros_(tensor)
        angles = 2 * math.pi * torch.arange(heads) / heads
        directions = torch.stack([angles.cos(), angles.sin()], 1)
        directions = directions / directions.abs().amax(1, keepdim=True)
        steps = torch.arange(1, points + 1).view(1, 1, -1, 1)
        with torch.no_grad():
            self.offsets.bias.copy_((directions.view(heads, 1, 1, 2) * steps).expand(*self.sizes, 2).flatten())

    def forward(
        self,
        queries: torch.Tensor,
        references: torch.Tensor,
        tokens: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> torch.Tensor:
        """(B, Q, C) with positions, (Q, 2) places (x, y) in [0, 1], (B, S, C) of the levels -> (B, Q, C).

        Offsets are in pixels of each level.
        """
        heads, levels, points = self.sizes
        sizes = references.new_tensor([[width, height] for height, width in spatial_shapes])
        offsets = self.offsets(queries).unflatten(-1, (heads, levels, points, 2))
        places = references[:, None, None, None] + offsets / sizes[:, None]
        weights = self.weights(queries).unflatten(-1, (heads, -1)).softmax(-1).unflatten(-1, (levels, points))
        value = self.value(tokens).unflatten(-1, (heads, -1))
        return self.output(deformable_attention(value, spatial_shapes, places, weights))
