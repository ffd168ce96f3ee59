"""Queries that read an image: the transformer decoder of DETR, shared by both proposal models.

B images, N queries, S tokens of the image, C channels.
"""

import torch
from torch import nn


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to the image, feed-forward; post-norm, as DETR and MaskFormer.

    Positions are added to queries and keys of the attentions, never to values (DETR, Carion et al., ECCV 2020, A.3).
    """

    def __init__(self, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.feedforward = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(
        self, queries: torch.Tensor, query_positions: torch.Tensor, tokens: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        """(B, N, C), (N, C), (B, S, C) values, (B, S, C) values with positions -> (B, N, C)."""
        asking = queries + query_positions
        queries = self.norms[0](queries + self.self_attention(asking, asking, queries, need_weights=False)[0])
        asking = queries + query_positions
        queries = self.norms[1](queries + self.cross_attention(asking, keys, tokens, need_weights=False)[0])
        return self.norms[2](queries + self.feedforward(queries))


class QueryDecoder(nn.Module):
    """N learned queries through `layers` decoder layers.

    Every query starts as its own learned vector, which is also its position; DETR starts all at zero.
    """

    def __init__(self, num_queries: int, channels: int, layers: int, heads: int, feedforward: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, channels))
        self.blocks = nn.ModuleList([DecoderLayer(channels, heads, feedforward) for _ in range(layers)])

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        """(B, S, C) and their positions (S, C) -> the queries (B, N, C) after every layer, last one last."""
        keys = tokens + positions
        states = [self.queries.expand(len(tokens), -1, -1)]
        for block in self.blocks:
            states.append(block(states[-1], self.queries, tokens, keys))
        return states[1:]


def sine_positions(height: int, width: int, channels: int) -> torch.Tensor:
    """DETR's fixed position embedding, (h * w, channels): half the channels for y, half for x, in [-1, 1].

    Coordinates run to 2 pi over the map; wavelengths grow geometrically to 10,000 times that. channels: divisible by 4.
    """
    frequencies = 10_000.0 ** -(torch.arange(0, channels // 2, 2) / (channels // 2))
    places = [2 * torch.pi * torch.arange(1, side + 1)[:, None] / side * frequencies for side in (height, width)]
    y, x = (torch.stack([angles.sin(), angles.cos()], 2).flatten(1) for angles in places)  # (side, channels / 2)
    return torch.cat([y[:, None].expand(-1, width, -1), x.expand(height, -1, -1)], 2).flatten(0, 1)
