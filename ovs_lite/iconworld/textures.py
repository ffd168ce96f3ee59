"""Sixteen kinds of stuff as procedural textures, painted for many regions at once.

Every painter takes the texture coordinates of n images and two noise fields and returns (n, 3, H, W) RGB. Patterns
are written in units of the image (1 = whole width), so a scene looks alike at 64 and 128 px.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

# n images, H W pixels. `f` is the field bundle that all painters read.


@dataclass(frozen=True)
class Field:
    """What a painter sees: coordinates u (right), v (down) in [0, 1], noise in about [-1, 1], a scale per image."""

    u: torch.Tensor  # (1, 1, H, W) or (n, 1, H, W)
    v: torch.Tensor
    coarse: torch.Tensor  # (n, 1, H, W), smooth blobs of a fifth of the image
    fine: torch.Tensor  # (n, 1, H, W), grain of one or two pixels
    scale: torch.Tensor  # (n, 1, 1, 1), pattern frequency factor near 1


def _wave(phase: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * torch.pi * phase)


def _line(position: torch.Tensor, width: float) -> torch.Tensor:
    """1 on a thin line at every whole number of `position`, 0 between."""
    return ((position - position.floor()) < width).float()


def _sky(base, f):
    cloud = ((f.coarse - 0.1) * 1.4).clamp(0, 1)
    return base + (f.v - 0.5) * 0.18 + cloud * 0.30


def _grass(base, f):
    blades = _wave(f.u * 34 * f.scale + f.coarse * 1.5 + f.fine * 0.4)
    return base * (1 + 0.22 * blades + 0.16 * f.fine)


def _sand(base, f):
    return base * (1 + 0.06 * _wave(f.v * 9 * f.scale + f.coarse * 0.7) + 0.09 * f.fine)


def _water(base, f):
    crest = _wave(f.v * 14 * f.scale + 0.4 * _wave(f.u * 3 * f.scale) + f.coarse * 0.5)
    return base + 0.16 * crest.clamp(min=0) ** 2 + 0.03 * f.fine


def _snow(base, f):
    shadow = torch.tensor([1.0, 0.7, 0.3], device=base.device).view(1, 3, 1, 1)
    return base - shadow * f.coarse.clamp(min=0) * 0.12 + 0.015 * f.fine


def _brick(base, f):
    row = f.v * 11 * f.scale
    column = f.u * 5.5 * f.scale + (row.floor() % 2) * 0.5
    mortar = torch.maximum(_line(row, 0.20), _line(column, 0.10))
    return base * (1 + 0.18 * f.coarse) * (1 - mortar) + mortar * 0.80 + 0.03 * f.fine


def _wood(base, f):
    plank = f.u * 5 * f.scale
    grain = _wave(f.u * 26 * f.scale + f.coarse * 1.2)
    return base * (1 + 0.13 * grain + 0.05 * f.fine) * (1 - 0.45 * _line(plank, 0.06))


def _road(base, f):
    dash = _line(f.u * 5 * f.scale, 0.55) * ((f.v - 0.72).abs() < 0.018).float()
    return (base + 0.055 * f.fine) * (1 - dash) + dash * 0.85


def _gravel(base, f):
    return base + 0.20 * torch.tanh(3 * f.fine) + 0.05 * f.coarse


def _carpet(base, f):
    dots = _wave(f.u * 12 * f.scale) * _wave(f.v * 12 * f.scale)
    return base * (1 + 0.45 * (dots > 0.45).float()) + 0.03 * f.fine


def _tile(base, f):
    joint = torch.maximum(_line(f.u * 6 * f.scale, 0.08), _line(f.v * 6 * f.scale, 0.08))
    return base * (1 - 0.42 * joint) + 0.04 * f.coarse


def _marble(base, f):
    vein = 1 - _wave((f.u + 0.6 * f.v) * 1.1 * f.scale + f.coarse * 0.35).abs().clamp(0, 0.22) / 0.22
    return base - 0.30 * vein + 0.01 * f.fine


def _field(base, f):
    rows = _wave((f.u * 0.8 + f.v) * 10 * f.scale)
    return base * (1 + 0.26 * rows + 0.06 * f.fine)


def _wall(base, f):
    stripe = (_wave(f.u * 7 * f.scale) > 0).float()
    return base * (1 - 0.10 * stripe) + 0.012 * f.fine


def _rock(base, f):
    facets = torch.round(2.5 * f.coarse + 0.5 * _wave(f.u * 2 + f.v * 3)) / 2.5
    return base * (1 + 0.42 * facets) + 0.05 * f.fine


def _soil(base, f):
    return base * (1 + 0.25 * f.coarse + 0.32 * torch.tanh(2 * f.fine))


@dataclass(frozen=True)
class Stuff:
    """One kind of stuff: its name, base colour (RGB in [0, 1]) and painter."""

    name: str
    colour: tuple[float, float, float]
    paint: Callable[[torch.Tensor, Field], torch.Tensor]


STUFF = (
    Stuff("sky", (0.50, 0.72, 0.94), _sky),
    Stuff("grass", (0.38, 0.66, 0.26), _grass),
    Stuff("sand", (0.88, 0.78, 0.55), _sand),
    Stuff("water", (0.14, 0.42, 0.60), _water),
    Stuff("snow", (0.93, 0.95, 0.98), _snow),
    Stuff("brick", (0.68, 0.32, 0.25), _brick),
    Stuff("wood", (0.66, 0.46, 0.28), _wood),
    Stuff("road", (0.34, 0.34, 0.37), _road),
    Stuff("gravel", (0.58, 0.57, 0.55), _gravel),
    Stuff("carpet", (0.48, 0.20, 0.34), _carpet),
    Stuff("tile", (0.74, 0.86, 0.85), _tile),
    Stuff("marble", (0.86, 0.83, 0.82), _marble),
    Stuff("field", (0.78, 0.68, 0.28), _field),
    Stuff("wall", (0.84, 0.76, 0.66), _wall),
    Stuff("rock", (0.46, 0.43, 0.42), _rock),
    Stuff("soil", (0.35, 0.24, 0.16), _soil),
)
STUFF_NAMES = tuple(stuff.name for stuff in STUFF)
NUM_SEEN_STUFF = 8
MOTTLE = 0.12  # brightness of soft blotches on every texture
GRAIN = 0.035  # of fine ones


def _noise(count: int, cells: int, size: int, generator: torch.Generator) -> torch.Tensor:
    grid = torch.rand(count, 1, cells, cells, generator=generator, device=generator.device) * 2 - 1
    return F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)


def paint_stuff(
    stuff_ids: torch.Tensor, size: int, generator: torch.Generator, new_style: bool = False
) -> torch.Tensor:
    """Paint one full-image texture per entry: (n,) stuff ids -> (n, 3, size, size) RGB in [0, 1].

    No texture is plain: each is mottled and grained on top of its pattern. `new_style` is the held-out look used by
    validation sets: other pattern frequencies and a shifted palette. Drawn on the generator's device, deterministic
    for a given generator state.
    """
    count, device = len(stuff_ids), generator.device
    axis = (torch.arange(size, device=device) + 0.5) / size
    coarse = _noise(count, 6, size, generator) * 1.3
    fine = _noise(count, size // 2, size, generator) * 1.3
    numbers = torch.rand(count, 5, 1, 1, generator=generator, device=device)
    scale, brightness, jitter = (
        0.85 + 0.3 * numbers[:, :1],
        0.92 + 0.16 * numbers[:, 1:2],
        (numbers[:, 2:] - 0.5) * 0.07,
    )
    if new_style:
        scale, jitter = scale * 1.35, jitter * 1.6
    base = torch.tensor([stuff.colour for stuff in STUFF])[stuff_ids].view(count, 3, 1, 1).to(device)
    base = (base + jitter) * brightness
    textures = torch.empty(count, 3, size, size, device=device)
    for kind, stuff in enumerate(STUFF):
        chosen = (stuff_ids == kind).nonzero(as_tuple=True)[0].to(device)
        if len(chosen):
            field = Field(axis.view(1, 1, 1, -1), axis.view(1, 1, -1, 1), coarse[chosen], fine[chosen], scale[chosen])
            textures[chosen] = stuff.paint(base[chosen], field)
    return textures.mul_(1 + MOTTLE * coarse.roll(1, 0)).add_(GRAIN * fine.roll(1, 0)).clamp_(0, 1)
