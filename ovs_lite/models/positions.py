"""Encodings of places in an image as vectors, the same for pixels and for prompts."""

import torch
from torch import nn

POSITIONS = ("sine", "fourier")
PERIODS = (0.5, 8.0)  # of the slowest and the fastest sine wave over the image


class PositionEncoding(nn.Module):
    """(..., 2) places (x, y) in [0, 1] of the image's width and height -> (..., C) in [-1, 1]. Nothing is trained.

    kind: "sine": sine and cosine of waves along y (half the channels) and x (the other half), as Uni-OVSeg's paper says
        (section 3, appendix A); it cites Vaswani et al. (NeurIPS 2017), whose lengths are those of sentences. Here they
        grow geometrically between the two of PERIODS. DETR's go from 1 to 1/10,000 of a period over the image: of 16
        all but a few are flat, and none is as fine as a small box.
        "fourier": sine and cosine of random directions (Tancik et al., NeurIPS 2020, section 6), drawn from torch's
        generator and kept in files, as SAM's and the released Uni-OVSeg's.
    Departure: the released model draws new directions for prompts, pixels and decoder; here one encoding serves all,
    so that a prompt and the pixel under it are alike.
    channels: C, divisible by 4. Raises ValueError for others and for an unknown kind.
    """

    def __init__(self, channels: int, kind: str = "sine"):
        super().__init__()
        if kind not in POSITIONS or channels % 4:
            expected = f"one of {', '.join(POSITIONS)}, and channels that 4 divides"
            raise ValueError(f"got positions {kind!r} with {channels} channels, expected {expected}")
        self.kind = kind
        if kind == "fourier":
            self.register_buffer("directions", torch.randn(2, channels // 2))
        else:
            slow, fast = PERIODS
            waves = fast * (slow / fast) ** torch.linspace(0, 1, channels // 4)
            self.register_buffer("waves", waves, persistent=False)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """As the class says. Half precision is too coarse for places: the result is float32 or wider."""
        if self.kind == "fourier":
            angles = (
                2
                * torch.pi
                * ((2 * places[..., :1] - 1) * self.directions[0] + (2 * places[..., 1:] - 1) * self.directions[1])
            )
            return torch.cat([angles.sin(), angles.cos()], -1)
        angles = 2 * torch.pi * places.flip(-1)[..., None] * self.waves  # y first
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)

    def grid(self, height: int, width: int) -> torch.Tensor:
        """Those of the centres of h x w cells, row by row: (h w, C)."""
        return self(cell_centres(height, width).to(next(self.buffers()).device))


def cell_centres(height: int, width: int) -> torch.Tensor:
    """Centres of h x w cells, row by row: (h w, 2) as (x, y) in [0, 1]."""
    y, x = (torch.arange(side) / side + 0.5 / side for side in (height, width))
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)
