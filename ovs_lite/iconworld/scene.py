"""What is in a scene and where: everything random about an image, drawn as tensors for a whole batch at once.

B scenes, R stuff regions, T things, G nouns, P places, S kinds of stuff. Positions and sizes are fractions of the
image's side; x runs right, y runs down; angles are in radians.
"""

from dataclasses import dataclass, fields

import torch

from ovs_lite.iconworld.atlas import TRAINING_STYLES, UNSEEN_STYLES, choices, drawable, load_drawings
from ovs_lite.iconworld.company import BOND, ELSEWHERE, load_company
from ovs_lite.iconworld.palette import TURNS, allowed_colours
from ovs_lite.iconworld.placement import place, region_at
from ovs_lite.iconworld.textures import STUFF

MAX_REGIONS = 3
COMPANY = 0.75  # share of scenes whose things and stuff belong together
HARD = 0.6  # share of scenes as photographs are: small, blurred, grained, things cut or partly hidden
TURNED = 0.2  # chance that a made thing is turned in hue
HIDDEN = 0.6  # chance that a thing of a hard scene is partly hidden
BLURRED = 0.7  # chance that a hard scene is blurred


@dataclass(frozen=True)
class SceneStyle:
    """Which scenes to draw.

    noun_ids, stuff_ids: what may appear (indices into `load_nouns()` and STUFF).
    other_ids: further nouns, which take about `other_share` of the things (shown by a data set and not labelled).
    things: fewest, most.
    size: factor range on the natural size 0.85 / sqrt(things).
    repeat: chance that a thing repeats the noun before it.
    styles: of drawing. unseen: share of scenes in UNSEEN_STYLES instead.
    new_style: share of scenes with held-out palette and textures.
    company: share of scenes at one place of `PLACES`. odd: whether the first thing is then not at home there.
    hard: share of scenes that are small, blurred, grained, cut or partly hidden.
    turned: chance that a made thing is turned in hue.
    """

    noun_ids: tuple[int, ...]
    stuff_ids: tuple[int, ...] = tuple(range(len(STUFF)))
    other_ids: tuple[int, ...] = ()
    other_share: float = 0.0
    things: tuple[int, int] = (1, 6)
    size: tuple[float, float] = (0.70, 1.05)
    repeat: float = 0.25
    styles: tuple[str, ...] = TRAINING_STYLES
    unseen: float = 0.0
    new_style: float = 0.0
    company: float = COMPANY
    odd: bool = False
    hard: float = HARD
    turned: float = TURNED


@dataclass
class SceneBatch:
    """B scenes as CPU tensors; see the fields. Invalid entries (beyond a scene's count) hold arbitrary values."""

    stuff_ids: torch.Tensor  # (B, R) int64
    stuff_valid: torch.Tensor  # (B, R) bool
    borders: torch.Tensor  # (B, R - 1) where region r ends, along the layout direction
    layout: torch.Tensor  # (B, 4) direction angle, wave amplitude, wave frequency, wave phase
    noun_ids: torch.Tensor  # (B, T) int64
    thing_valid: torch.Tensor  # (B, T) bool
    drawing_ids: torch.Tensor  # (B, T) int64, see `load_drawings`
    turn_ids: torch.Tensor  # (B, T) int64 hue turn of a made thing, 0: as drawn
    colour_ids: torch.Tensor  # (B, T) int64 colour word, NO_COLOUR: none names the thing
    x: torch.Tensor  # (B, T) centre
    y: torch.Tensor  # (B, T)
    size: torch.Tensor  # (B, T) side of the sprite, descending: large things are drawn first
    rotation: torch.Tensor  # (B, T)
    flip: torch.Tensor  # (B, T) +1 or -1
    cover: torch.Tensor  # (B, T, 2) what hides a part: its direction, and where it begins (1: at the sprite's edge)
    light: torch.Tensor  # (B,) where the light comes from
    blur: torch.Tensor  # (B,) 0 sharp .. 1
    grain: torch.Tensor  # (B,) standard deviation of the noise
    unseen: torch.Tensor  # (B,) bool, drawn in UNSEEN_STYLES
    new_style: torch.Tensor  # (B,) bool
    place_ids: torch.Tensor  # (B,) int64 row of PLACES, -1: no place in particular

    def __len__(self) -> int:
        return len(self.stuff_ids)

    def select(self, index: torch.Tensor) -> "SceneBatch":
        """The scenes at `index`, in that order."""
        return SceneBatch(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def _uniform(shape, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _chance(shape, probability: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator) < probability


def _weighted_order(weights: torch.Tensor, number: int, generator: torch.Generator) -> torch.return_types.topk:
    """(B, K) weights -> the first `number` of a weighted random order: u ** (1 / w) orders by weight, without
    replacement (Efraimidis and Spirakis, 2006). Entries of weight 0 come last, with values below 0."""
    keys = torch.rand(weights.shape, generator=generator).log() / weights.clamp(min=1e-9)
    return keys.exp().masked_fill(weights == 0, -1.0).topk(number, dim=1)


def _sample_stuff(count, style, place_ids, generator) -> tuple[torch.Tensor, torch.Tensor]:
    regions = min(MAX_REGIONS, len(style.stuff_ids))
    there = load_company().stuff[place_ids][:, list(style.stuff_ids)]
    weights = torch.where(there | (place_ids < 0)[:, None], 1.0, ELSEWHERE)
    stuff_ids = torch.tensor(style.stuff_ids)[_weighted_order(weights, regions, generator).indices]
    number = torch.randint(min(2, regions), regions + 1, (count, 1), generator=generator)
    number = torch.where((place_ids >= 0)[:, None], number.clamp(max=2), number)  # a place has two kinds of stuff
    # sky, where present, comes first: on top
    sky_first = torch.where(stuff_ids == 0, -1.0, 0.0) + torch.arange(regions) * 1e-3
    valid = torch.arange(regions) < number
    order = (sky_first + 10.0 * ~valid).argsort(1)
    return stuff_ids.gather(1, order), valid.gather(1, order)


def _sample_layout(stuff_ids, stuff_valid, generator) -> tuple[torch.Tensor, torch.Tensor]:
    count, regions = stuff_ids.shape
    shares = torch.rand(count, regions, generator=generator).add(0.6) * stuff_valid
    borders = (shares.cumsum(1) / shares.sum(1, keepdim=True))[:, :-1]
    tilt = _uniform((count,), -0.35, 0.35, generator)
    sideways = _chance((count,), 0.2, generator) & (stuff_ids[:, 0] != 0)
    waves = [_uniform((count,), low, high, generator) for low, high in ((0.0, 0.05), (0.5, 2.5), (0.0, 1.0))]
    return borders, torch.stack([tilt + sideways * torch.pi / 2, *waves], 1)


def _noun_weights(style: SceneStyle, unseen: torch.Tensor) -> torch.Tensor:
    """(B, G): how likely each noun is in each scene, company aside."""
    weights = torch.zeros(len(load_company().nouns[0]))
    if style.other_ids and style.other_share > 0:
        odds = style.other_share / (1 - style.other_share)
        weights[list(style.other_ids)] = odds * len(style.noun_ids) / len(style.other_ids)
    weights[list(style.noun_ids)] = 1.0
    families = torch.stack([weights * drawable(style.styles), weights * drawable(UNSEEN_STYLES)])
    possible = families.sum(1) > 0
    if not possible[unseen.long().unique()].all():
        raise ValueError(f"got no noun that the styles {style.styles} and {UNSEEN_STYLES} draw, expected at least one")
    return families[unseen.long()]


def _sample_places(lead: torch.Tensor, style: SceneStyle, generator: torch.Generator) -> torch.Tensor:
    """(B,) place where the lead noun is at home (for odd scenes: is not), -1 for the share without company."""
    home = load_company().nouns[:, lead].T
    places = torch.multinomial((~home if style.odd else home).float(), 1, generator=generator)[:, 0]
    return torch.where(_chance(lead.shape, style.company, generator), places, -1)


def _sample_nouns(things, weights, lead, place_ids, style, generator) -> torch.Tensor:
    """(B, T) noun ids, the lead first: different nouns unless repeated, and mostly of the place where there is one."""
    bonded = load_company().nouns[place_ids] & (place_ids >= 0)[:, None]
    weights = (weights * torch.where(bonded, BOND, 1.0)).scatter(1, lead[:, None], 0.0)
    others = _weighted_order(weights, min(things - 1, weights.shape[1]), generator)
    nouns = torch.where(others.values < 0, lead[:, None], others.indices)  # too few nouns: repeat the lead
    nouns = torch.cat([lead[:, None], nouns], 1)
    nouns = torch.cat([nouns, lead[:, None].expand(-1, things - nouns.shape[1])], 1)
    repeats = _chance(nouns.shape, style.repeat, generator)
    for thing in range(1, things):
        nouns[:, thing] = torch.where(repeats[:, thing], nouns[:, thing - 1], nouns[:, thing])
    return nouns


def _sample_drawings(nouns, unseen, style, generator) -> torch.Tensor:
    """(B, T) drawing ids."""
    drawn = torch.rand(nouns.shape, generator=generator)
    picks = []
    for styles in (style.styles, UNSEEN_STYLES):
        ids, chances = choices(styles)
        which = (chances[nouns] < drawn[..., None]).sum(-1).clamp(max=ids.shape[1] - 1)
        picks.append(ids[nouns].gather(-1, which[..., None])[..., 0])
    return torch.where(unseen[:, None], picks[1], picks[0])


def _sample_colours(nouns, drawing_ids, allowed, turned, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Hue turns and colour words (B, T). Glyphs: different colours for different nouns while they last; equal nouns
    share colour and turn half of the time."""
    drawings, (count, things) = load_drawings(), nouns.shape
    keys = torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0)
    painted = keys.argsort(1, descending=True).gather(1, torch.arange(things) % allowed.sum(1, keepdim=True))
    turns = torch.randint(1, TURNS, nouns.shape, generator=generator)
    turns = torch.where(_chance(nouns.shape, turned, generator) & drawings.made[drawing_ids], turns, 0)
    shared = _chance((count, things), 0.5, generator)
    for thing in range(1, things):
        same = (nouns[:, thing] == nouns[:, thing - 1]) & shared[:, thing]
        painted[:, thing] = torch.where(same, painted[:, thing - 1], painted[:, thing])
        turns[:, thing] = torch.where(same, turns[:, thing - 1], turns[:, thing])
    glyph = drawings.glyph[drawing_ids]
    turns = turns.masked_fill(glyph, 0)
    return turns, torch.where(glyph, painted, drawings.colours[drawing_ids, turns])


def _sample_sizes(number, valid, hard, style, generator) -> torch.Tensor:
    size = 0.85 / number.sqrt() * _uniform(valid.shape, *style.size, generator)
    small = 0.35 + 0.1 * (number - 1).clamp(max=3)  # alone a thing may be a third of its size, in company two thirds
    small = small + (1 - small) * torch.rand(valid.shape, generator=generator)
    size = torch.where(hard[:, None], size * small, size)
    return size.masked_fill(~valid, 0).sort(1, descending=True).values


def _sample_cover(hard, shape, generator) -> torch.Tensor:
    """(B, T, 2): mostly something before a thing's feet."""
    direction = torch.pi / 2 + 0.9 * torch.randn(shape, generator=generator)
    begin = _uniform(shape, 0.05, 0.55, generator)
    hidden = hard[:, None] & _chance(shape, HIDDEN, generator)
    return torch.stack([direction, torch.where(hidden, begin, 9.0)], -1)


def sample_scenes(
    count: int, style: SceneStyle, generator: torch.Generator, lead: torch.Tensor | None = None
) -> SceneBatch:
    """Draw `count` scenes of a style. `lead` (count,) names the first and largest thing of each scene (for batches in
    which all nouns differ). Deterministic for a given state of a CPU generator."""
    unseen, hard = (_chance((count,), share, generator) for share in (style.unseen, style.hard))
    weights = _noun_weights(style, unseen)
    drawn_lead = torch.multinomial(weights, 1, generator=generator)[:, 0]
    lead = drawn_lead if lead is None else lead
    place_ids = _sample_places(lead, style, generator)
    stuff_ids, stuff_valid = _sample_stuff(count, style, place_ids, generator)
    borders, layout = _sample_layout(stuff_ids, stuff_valid, generator)
    fewest, things = style.things
    number = torch.randint(fewest, things + 1, (count, 1), generator=generator)
    nouns = _sample_nouns(things, weights, lead, place_ids, style, generator)
    valid = torch.arange(things) < number
    drawing_ids = _sample_drawings(nouns, unseen, style, generator)
    allowed = allowed_colours(stuff_ids, stuff_valid)
    turns, colours = _sample_colours(nouns, drawing_ids, allowed, style.turned, generator)
    size = _sample_sizes(number, valid, hard, style, generator)
    home = load_company().stuff[place_ids].gather(1, stuff_ids) & (place_ids >= 0)[:, None] & (stuff_ids != 0)
    x, y = place(
        size, valid, hard, lambda u, v: home.gather(1, region_at(layout, borders, stuff_valid, u, v)), generator
    )
    return SceneBatch(
        stuff_ids, stuff_valid, borders, layout, nouns, valid, drawing_ids, turns, colours, x, y, size,
        rotation=_uniform((count, things), -0.35, 0.35, generator),
        flip=torch.where(_chance((count, things), 0.5, generator), 1.0, -1.0),
        cover=_sample_cover(hard, (count, things), generator),
        light=_uniform((count,), -torch.pi, 0, generator),  # from above
        blur=torch.where(hard & _chance((count,), BLURRED, generator), _uniform((count,), 0.3, 0.9, generator), 0.0),
        grain=torch.where(hard, _uniform((count,), 0.015, 0.05, generator), 0.01),
        unseen=unseen, new_style=_chance((count,), style.new_style, generator), place_ids=place_ids,
    )  # fmt: skip
