"""What is in a scene and where: everything random about a picture, drawn as tensors for a whole batch at once.

B scenes, R stuff regions, T things, G nouns. Positions and sizes are fractions of the picture's side; x runs right,
y runs down; rotation is in radians.
"""

from dataclasses import dataclass, fields

import torch

from ovs_lite.iconworld.atlas import glyph_atlas, variant_atlas
from ovs_lite.iconworld.palette import allowed_colours
from ovs_lite.iconworld.textures import STUFF

MAX_REGIONS = 3
PLACEMENT_TRIES = 12


@dataclass(frozen=True)
class SceneStyle:
    """Which scenes to draw.

    noun_ids, stuff_ids: what may appear (indices into `load_nouns()` and STUFF). other_ids: further nouns, which take
    about `other_share` of the things (they stand for what a data set shows and does not label). things: fewest, most.
    size: factor range on the natural size 0.85 / sqrt(things). repeat: chance that a thing repeats the noun before it.
    second_font: share of scenes drawn in the second font. new_style: share with held-out palette and textures.
    variants: chance that a thing is drawn by another glyph of the first font, where that has one (an outline, a side).
    """

    noun_ids: tuple[int, ...]
    stuff_ids: tuple[int, ...] = tuple(range(len(STUFF)))
    other_ids: tuple[int, ...] = ()
    other_share: float = 0.0
    things: tuple[int, int] = (1, 6)
    size: tuple[float, float] = (0.70, 1.05)
    repeat: float = 0.25
    second_font: float = 0.0
    new_style: float = 0.0
    variants: float = 0.0


@dataclass
class SceneBatch:
    """B scenes as tensors; see the fields. Invalid entries (beyond a scene's count) hold arbitrary values."""

    stuff_ids: torch.Tensor  # (B, R) int64
    stuff_valid: torch.Tensor  # (B, R) bool
    borders: torch.Tensor  # (B, R - 1) where region r ends, along the layout direction
    layout: torch.Tensor  # (B, 4) direction angle, wave amplitude, wave frequency, wave phase
    noun_ids: torch.Tensor  # (B, T) int64
    thing_valid: torch.Tensor  # (B, T) bool
    colour_ids: torch.Tensor  # (B, T) int64
    x: torch.Tensor  # (B, T)
    y: torch.Tensor  # (B, T)
    size: torch.Tensor  # (B, T), descending: large things are drawn first
    rotation: torch.Tensor  # (B, T)
    flip: torch.Tensor  # (B, T) +1 or -1
    second_font: torch.Tensor  # (B,) bool
    new_style: torch.Tensor  # (B,) bool
    drawing: torch.Tensor  # (B, T) int64, 0 the noun's usual glyph, i the first font's i-th variant of it

    def __len__(self) -> int:
        return len(self.stuff_ids)

    def select(self, index: torch.Tensor) -> "SceneBatch":
        """The scenes at `index`, in that order."""
        return SceneBatch(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _uniform(shape, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chance(shape, probability: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator) < probability


def _sample_stuff(count: int, style: SceneStyle, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    regions = min(MAX_REGIONS, len(style.stuff_ids))
    order = torch.rand(count, len(style.stuff_ids), generator=generator).argsort(1)[:, :regions]
    stuff_ids = torch.tensor(style.stuff_ids)[order]
    number = torch.randint(min(2, regions), regions + 1, (count, 1), generator=generator)
    # sky, where present, comes first: on top
    sky_first = torch.where(stuff_ids == 0, -1.0, 0.0) + torch.arange(regions) * 1e-3
    return stuff_ids.gather(1, sky_first.argsort(1)), torch.arange(regions) < number


def _sample_layout(stuff_ids, stuff_valid, generator) -> tuple[torch.Tensor, torch.Tensor]:
    count, regions = stuff_ids.shape
    shares = torch.rand(count, regions, generator=generator).add(0.6) * stuff_valid
    borders = (shares.cumsum(1) / shares.sum(1, keepdim=True))[:, :-1]
    tilt = _uniform((count,), -0.35, 0.35, generator)
    sideways = _chance((count,), 0.2, generator) & (stuff_ids[:, 0] != 0)
    waves = [_uniform((count,), low, high, generator) for low, high in ((0.0, 0.05), (0.5, 2.5), (0.0, 1.0))]
    return borders, torch.stack([tilt + sideways * torch.pi / 2, *waves], 1)


def _noun_weights(style: SceneStyle) -> torch.Tensor:
    weights = torch.zeros(len(glyph_atlas("mdi")[1]))
    if style.other_ids and style.other_share > 0:
        odds = style.other_share / (1 - style.other_share)
        weights[list(style.other_ids)] = odds * len(style.noun_ids) / len(style.other_ids)
    weights[list(style.noun_ids)] = 1.0
    return weights


def _sample_nouns(count, things, style, second_font, lead, generator) -> torch.Tensor:
    """(count, things) noun ids: different nouns unless repeated; `lead` (count,) fixes the first one."""
    weights = _noun_weights(style).expand(count, -1).clone()
    if second_font.any():
        drawable = glyph_atlas("fa")[1]
        weights[second_font] *= drawable
    if not (weights.sum(1) > 0).all():
        raise ValueError("got no noun that the second font can draw, expected at least one; lower second_font to 0")
    if lead is not None:
        weights.scatter_(1, lead[:, None], 0.0)
    # u ** (1 / w) orders by weight: sampling without replacement (Efraimidis and Spirakis, 2006)
    keys = torch.rand(weights.shape, generator=generator).pow(1 / weights).masked_fill(weights == 0, -1.0)
    nouns = keys.topk(min(things, keys.shape[1]), dim=1)
    nouns = torch.where(nouns.values < 0, nouns.indices[:, :1], nouns.indices)  # too few nouns: repeat the first
    nouns = torch.cat([nouns, nouns[:, :1].expand(-1, things - nouns.shape[1])], 1)
    if lead is not None:
        nouns = torch.cat([lead[:, None], nouns[:, :-1]], 1)
    repeats = _chance((count, things), style.repeat, generator)
    for thing in range(1, things):
        nouns[:, thing] = torch.where(repeats[:, thing], nouns[:, thing - 1], nouns[:, thing])
    return nouns


def _sample_colours(nouns, allowed, generator) -> torch.Tensor:
    """Different colours for different nouns while they last; equal nouns share a colour seven times in ten."""
    count, things = nouns.shape
    keys = torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0)
    order = keys.argsort(1, descending=True)
    number = allowed.sum(1, keepdim=True)
    colours = order.gather(1, torch.arange(things).expand(count, -1) % number)
    shared = _chance((count, things), 0.7, generator)
    for thing in range(1, things):
        same = (nouns[:, thing] == nouns[:, thing - 1]) & shared[:, thing]
        colours[:, thing] = torch.where(same, colours[:, thing - 1], colours[:, thing])
    return colours


def _place(size: torch.Tensor, valid: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions that keep things apart: for each thing the best of PLACEMENT_TRIES candidates. (B, T) -> x, y."""
    count, things = size.shape
    x, y = torch.zeros(count, things), torch.zeros(count, things)
    for thing in range(things):
        margin = (size[:, thing, None] / 2).clamp(max=0.5)
        spots = torch.rand(2, count, PLACEMENT_TRIES, generator=generator) * (1 - 2 * margin) + margin
        gap = torch.full((count, PLACEMENT_TRIES), 1.0)
        for other in range(thing):
            distance = torch.hypot(spots[0] - x[:, other, None], spots[1] - y[:, other, None])
            free = distance - (size[:, thing, None] + size[:, other, None]) / 2
            gap = torch.minimum(gap, free.masked_fill(~valid[:, other, None], 1.0))
        best = gap.argmax(1, keepdim=True)
        x[:, thing], y[:, thing] = (spot.gather(1, best)[:, 0] for spot in spots)
    return x, y


def _sample_drawings(nouns: torch.Tensor, style: SceneStyle, generator: torch.Generator) -> torch.Tensor:
    if style.variants == 0:
        return torch.zeros_like(nouns)
    number = variant_atlas()[2][nouns]
    which = 1 + (torch.rand(nouns.shape, generator=generator) * number).long().clamp(max=(number - 1).clamp(min=0))
    return torch.where(_chance(nouns.shape, style.variants, generator) & (number > 0), which, 0)


def sample_scenes(
    count: int, style: SceneStyle, generator: torch.Generator, lead: torch.Tensor | None = None
) -> SceneBatch:
    """Draw `count` scenes of a style. `lead` (count,) names the first and largest thing of each scene (for batches in
    which all nouns differ). Deterministic for a given generator state."""
    stuff_ids, stuff_valid = _sample_stuff(count, style, generator)
    borders, layout = _sample_layout(stuff_ids, stuff_valid, generator)
    fewest, things = style.things
    second_font = _chance((count,), style.second_font, generator)
    number = torch.randint(fewest, things + 1, (count, 1), generator=generator)
    nouns = _sample_nouns(count, things, style, second_font, lead, generator)
    valid = torch.arange(things) < number
    size = 0.85 / number.sqrt() * _uniform((count, things), *style.size, generator)
    size = size.masked_fill(~valid, 0).sort(1, descending=True).values
    x, y = _place(size, valid, generator)
    return SceneBatch(
        stuff_ids, stuff_valid, borders, layout, nouns, valid,
        _sample_colours(nouns, allowed_colours(stuff_ids, stuff_valid), generator),
        x, y, size,
        _uniform((count, things), -0.35, 0.35, generator),
        torch.where(_chance((count, things), 0.5, generator), 1.0, -1.0),
        second_font, _chance((count,), style.new_style, generator), _sample_drawings(nouns, style, generator),
    )  # fmt: skip
