"""Where the things of a scene stand: apart from each other, and on their own ground where the scene has it.

B scenes, R stuff regions, T things, N points. Positions are fractions of the image's side; x runs right, y down.
"""

from collections.abc import Callable

import torch

TRIES = 12
ON_GROUND = 0.35  # a spot on a thing's own ground is worth this much distance to the next thing
CUT = 0.5  # share of their margin by which things of hard scenes may leave the frame


def region_at(
    layout: torch.Tensor, borders: torch.Tensor, stuff_valid: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Which stuff region covers each point.

    layout: (B, 4) direction angle, wave amplitude, wave frequency, wave phase.
    borders: (B, R - 1) where region r ends, along the layout direction.
    stuff_valid: (B, R) bool.
    x, y: (B or 1, N) in [0, 1].
    Returns (B, N) int64 in 0..R-1.
    """
    angle, amplitude, frequency, phase = (value[:, None] for value in layout.unbind(1))
    u, v = x - 0.5, y - 0.5
    across = u * angle.cos() - v * angle.sin()
    along = v * angle.cos() + u * angle.sin() + 0.5
    along = along + amplitude * torch.sin(2 * torch.pi * (across * frequency + phase))
    ends = borders.masked_fill(~stuff_valid[:, 1:], torch.inf)
    region = torch.zeros(along.shape, dtype=torch.int64, device=along.device)
    for end in ends.unbind(1):
        region += along > end[:, None]
    return region


def place(
    size: torch.Tensor,
    valid: torch.Tensor,
    hard: torch.Tensor,
    grounded: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each thing the best of TRIES spots.

    size: (B, T) sides. valid: (B, T) bool. hard: (B,) bool, things may be cut by the frame.
    grounded: x, y of points (B, N) -> (B, N) bool, whether a thing may stand there.
    Returns centres x, y: (B, T).
    """
    count, things = size.shape
    x, y = torch.zeros(count, things), torch.zeros(count, things)
    for thing in range(things):
        own = size[:, thing, None]
        margin = (own / 2 * torch.where(hard, 1 - CUT, 1.0)[:, None]).clamp(max=0.5)
        spots = torch.rand(2, count, TRIES, generator=generator) * (1 - 2 * margin) + margin
        gap = torch.full((count, TRIES), 0.2)  # farther apart is no better
        if thing:
            away = torch.hypot(spots[0][..., None] - x[:, None, :thing], spots[1][..., None] - y[:, None, :thing])
            free = away - (own + size[:, :thing])[:, None] / 2
            gap = gap.minimum(free.masked_fill(~valid[:, None, :thing], 1.0).amin(-1))
        best = (gap + ON_GROUND * grounded(spots[0], spots[1] + 0.35 * own)).argmax(1, keepdim=True)
        x[:, thing], y[:, thing] = (spot.gather(1, best)[:, 0] for spot in spots)
    return x, y
