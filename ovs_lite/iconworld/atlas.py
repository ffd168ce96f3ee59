"""The atlas: every drawing of every noun in every style, read once per process from the shipped sheets.

D drawings of all styles, one behind another in the order of the index; a drawing is one picture of one noun in one
style. `data_scripts/make_sprites.py` makes the sheets and the index.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite.iconworld.nouns import load_nouns
from ovs_lite.iconworld.palette import NO_COLOUR, TURNS

FOLDER = Path(__file__).parent / "sprites"
TRAINING_STYLES = ("noto", "twemoji", "emojione", "firefox", "mdi")
UNSEEN_STYLES = ("fluent-3d", "fluent-flat", "fa")  # never in training: validation is drawn unlike it
STYLES = (*TRAINING_STYLES, *UNSEEN_STYLES)
GLYPHS = ("mdi", "fa")  # of one colour, which a scene chooses
GLYPH_WEIGHT = 0.4  # how often a style of glyphs is taken, an emoji style being 1
LEVELS = 3  # sprites at full, half and quarter side, so that small things are not aliased


@dataclass(frozen=True)
class Drawings:
    """What is known of the D drawings without their pictures.

    noun_ids, style_ids: (D,) int64, indices into `load_nouns()` and STYLES. made: (D,) bool, may be turned in hue.
    glyph: (D,) bool, painted in a colour of the scene. colours: (D, TURNS) int64 index into COLOUR_NAMES by hue turn,
    NO_COLOUR where none covers most of it. names: D names of emoji or glyphs.
    """

    noun_ids: torch.Tensor
    style_ids: torch.Tensor
    made: torch.Tensor
    glyph: torch.Tensor
    colours: torch.Tensor
    names: tuple[str, ...]


@lru_cache(maxsize=1)
def read_index() -> dict:
    """The index of the shipped sprites: side, columns, and for each style its file, source and drawings."""
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    if tuple(sorted(index["styles"])) != tuple(sorted(STYLES)):
        raise ValueError(f"{FOLDER}/index.json: got styles {sorted(index['styles'])}, expected {sorted(STYLES)}")
    return index


@lru_cache(maxsize=1)
def load_drawings() -> Drawings:
    """The drawings of all styles, in the order of STYLES and of the index. Raises ValueError for an unknown noun."""
    number = {noun.noun: i for i, noun in enumerate(load_nouns())}
    rows = [(style, *row) for style in STYLES for row in read_index()["styles"][style]["drawings"]]
    unknown = sorted({noun for _, noun, *_ in rows} - set(number))
    if unknown:
        raise ValueError(f"{FOLDER}/index.json: unknown nouns {', '.join(unknown)}; run data_scripts/make_sprites.py")
    nouns = torch.tensor([number[noun] for _, noun, *_ in rows])
    colours = [words * (TURNS // len(words)) if words else [NO_COLOUR] * TURNS for *_, words in rows]
    return Drawings(
        nouns,
        torch.tensor([STYLES.index(style) for style, *_ in rows]),
        torch.tensor([load_nouns()[i].made for i in nouns.tolist()]),
        torch.tensor([style in GLYPHS for style, *_ in rows]),
        torch.tensor(colours),
        tuple(name for *_, name, _ in rows),
    )


@lru_cache(maxsize=4)
def sprites(device: str) -> tuple[torch.Tensor, ...]:
    """All drawings at LEVELS sizes, largest first: (D, 4, S, S) uint8 RGB times alpha, and alpha; S halves."""
    side, columns = read_index()["side"], read_index()["columns"]
    parts = []
    for style in STYLES:
        entry = read_index()["styles"][style]
        sheet = np.asarray(Image.open(FOLDER / entry["file"]).convert("RGBA"))
        cells = sheet.reshape(len(sheet) // side, side, columns, side, 4).swapaxes(1, 2).reshape(-1, side, side, 4)
        parts.append(cells[: len(entry["drawings"])])
    whole = torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).to(device)
    return _levels(whole)


def _levels(whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Premultiplied and shrunk, some dozen drawings at a time: their floats stay in a CPU's caches."""
    sizes: list[list[torch.Tensor]] = [[] for _ in range(LEVELS)]
    for some in whole.split(32):
        some = some.float()
        some[:, :3] *= some[:, 3:] / 255
        for level, parts in enumerate(sizes):
            shrunk = F.avg_pool2d(some, 2**level) if level else some
            parts.append(shrunk.round().to(torch.uint8))
    return tuple(map(torch.cat, sizes))


def specimen(noun: str, style: str) -> np.ndarray:
    """The first drawing of a noun in a style, on white; glyphs in black: (S, S, 3) uint8 RGB.

    Raises ValueError where the style has no such drawing.
    """
    drawings, nouns = load_drawings(), [entry.noun for entry in load_nouns()]
    if noun not in nouns or style not in STYLES:
        raise ValueError(f"got {noun!r} in {style!r}, expected a noun of IconWorld and one of {', '.join(STYLES)}")
    mine = (drawings.noun_ids == nouns.index(noun)) & (drawings.style_ids == STYLES.index(style))
    if not mine.any():
        raise ValueError(f"got {noun!r} in {style!r}, which has no such drawing; `drawable` tells which styles have it")
    layers = sprites("cpu")[0][mine.nonzero()[0, 0]].int()
    colour = 0 if style in GLYPHS else layers[:3]
    return (colour + 255 - layers[3:]).expand(3, -1, -1).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


@lru_cache(maxsize=16)
def choices(styles: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """How a noun is drawn in some styles: drawing ids (G, K) int64 and their cumulative chances (G, K).

    Every style that has the noun is as likely as any other (glyphs: GLYPH_WEIGHT times), and within it every drawing.
    A noun that no such style draws has chances of 0.
    """
    drawings, nouns = load_drawings(), load_nouns()
    wanted = torch.tensor([style in styles for style in STYLES])[drawings.style_ids]
    per_style = torch.zeros(len(nouns), len(STYLES))
    per_style.index_put_((drawings.noun_ids, drawings.style_ids), torch.ones(len(wanted)), accumulate=True)
    weight = wanted / per_style[drawings.noun_ids, drawings.style_ids]
    weight = torch.where(drawings.glyph, GLYPH_WEIGHT * weight, weight)
    rows = [(drawings.noun_ids == noun).logical_and(wanted).nonzero()[:, 0] for noun in range(len(nouns))]
    most = max(map(len, rows))
    ids, chances = torch.zeros(len(nouns), most, dtype=torch.int64), torch.zeros(len(nouns), most)
    for noun, row in enumerate(rows):
        ids[noun, : len(row)], chances[noun, : len(row)] = row, weight[row]
    return ids, (chances / chances.sum(1, keepdim=True).clamp(min=1e-9)).cumsum(1)


def drawable(styles: tuple[str, ...]) -> torch.Tensor:
    """(G,) bool: which nouns some of the styles draw."""
    return choices(styles)[1][:, -1] > 0
