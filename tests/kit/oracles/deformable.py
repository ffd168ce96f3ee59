"""Multi-scale deformable attention as it is usually written, one grid_sample per level, and as loops."""

import math

import torch
import torch.nn.functional as F


def sampled_attention(value, spatial_shapes, locations, weights):
    """The reference formulation: grid_sample (bilinear, zeros, align_corners=False) of each level, then the sum."""
    images, _, heads, size = value.shape
    maps = value.split([height * width for height, width in spatial_shapes], 1)
    total = 0.0
    for level, shape in enumerate(spatial_shapes):
        planes = maps[level].permute(0, 2, 3, 1).reshape(images * heads, size, *shape)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total = total + (samples * share).sum(-1)  # (B heads, d, Q)
    return total.view(images, heads * size, -1).transpose(1, 2)


def slow_attention(value, spatial_shapes, locations, weights):
    """The same in loops over numbers."""
    images, queries, heads, levels, points, _ = locations.shape
    size, starts, start = value.shape[-1], [], 0
    for height, width in spatial_shapes:
        starts.append(start)
        start += height * width
    found = torch.zeros(images, queries, heads * size, dtype=value.dtype)
    for b in range(images):
        for q in range(queries):
            for h in range(heads):
                for level in range(levels):
                    for p in range(points):
                        height, width = spatial_shapes[level]
                        x = float(locations[b, q, h, level, p, 0]) * width - 0.5
                        y = float(locations[b, q, h, level, p, 1]) * height - 0.5
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                                    pixel = value[b, starts[level] + row * width + column, h]
                                    found[b, q, h * size : (h + 1) * size] += share * weights[b, q, h, level, p] * pixel
    return found
