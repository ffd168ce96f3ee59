"""The multi-scale feature adapter: what is trained to bring pixels of a frozen CLIP closer to words.

Uni-OVSeg (Wang et al., 2024), appendix A, "Multi-scale feature adapter". B images, S input scales, D channels, r rank,
h w places of a map.
"""

import torch
from torch import nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "none": nn.Identity}


class LowRankAdapter(nn.Module):
    """x + (alpha / r) B act(A x) on the last axis, A: D -> r, B: r -> D. B starts at zero, so that x comes out.

    activation: "gelu" or "relu" for the paper's "non-linear activation function", which it does not name; "none" as in
        the released code's LoRA. A starts as Kaiming's uniform values, as there.
    alpha: the branch is scaled by alpha / r; default r, so not at all. The released code has 1.
    bias: of A and B. Off, as in LoRA: with one, a step that only moves all regions towards the mean of all texts is the
        shortest way to a lower Eq. 8, and tells no region from another.
    Raises ValueError for another activation and for a rank below 1.
    """

    def __init__(
        self, channels: int, rank: int = 8, activation: str = "gelu", alpha: float | None = None, bias: bool = False
    ):
        super().__init__()
        if activation not in ACTIVATIONS or rank < 1:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"got activation={activation!r}, rank={rank}, expected one of {known}, and 1 or more")
        self.down, self.up = nn.Linear(channels, rank, bias), nn.Linear(rank, channels, bias)
        self.activation, self.factor = ACTIVATIONS[activation](), 1.0 if alpha is None else alpha / rank
        for value in self.up.parameters():
            nn.init.zeros_(value)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D)."""
        return features + self.factor * self.up(self.activation(self.down(features)))


class MultiScaleAdapter(nn.ModuleList):
    """One `LowRankAdapter` for each of S input scales. settings: of each, see there."""

    def __init__(self, scales: int, channels: int, rank: int = 8, **settings):
        super().__init__(LowRankAdapter(channels, rank, **settings) for _ in range(scales))

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """S maps (B, D, h, w), each of its own h and w -> the same, adapted pixel by pixel. Raises ValueError."""
        if len(maps) != len(self):
            raise ValueError(f"got {len(maps)} maps, expected one for each of {len(self)} scales")
        return [one(seen.movedim(1, -1)).movedim(-1, 1) for one, seen in zip(self, maps, strict=True)]
