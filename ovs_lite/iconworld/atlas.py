"""The glyph atlas: every drawable noun as a small alpha picture, rendered once per process from the icon fonts."""

from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ovs_lite.iconworld.nouns import load_nouns

# font key -> (package, module attribute with the glyph names, font file)
FONTS = {
    "mdi": ("fonticon_mdi7", "MDI7", "materialdesignicons-webfont.ttf"),
    "fa": ("fonticon_fa6", "FA6S", "Font Awesome 6 Free-Solid-900.otf"),
}
GLYPH_SIZE = 64
OVERSAMPLING = 4
VARIANTS = ("outline", "variant", "variant_outline", "side", "back", "alternate", "2")  # still the same thing


def font_path(font: str) -> Path:
    """Path of the font file for "mdi" or "fa". Raises FileNotFoundError with the cure when the package is absent."""
    if font not in FONTS:
        raise ValueError(f"got font {font!r}, expected one of {sorted(FONTS)}")
    package, _, file = FONTS[font]
    try:
        folder = Path(import_module(package).__file__).parent
    except ImportError as error:
        message = f"icon font package {package} is not installed: pip install -r requirements.txt"
        raise FileNotFoundError(message) from error
    return folder / "fonts" / file


def glyph_character(font: str, name: str) -> str:
    """The character that draws `name` in the font. Raises ValueError when the font has no such glyph."""
    package, table, _ = FONTS[font]
    key = getattr(getattr(import_module(package), table), name, None)
    if not isinstance(key, str):
        raise ValueError(f"font {font!r} ({package}) has no glyph named {name!r}")
    return key.rsplit(".", 1)[-1]


def draw_glyph(font: str, name: str, size: int = GLYPH_SIZE) -> np.ndarray:
    """One glyph as (size, size) float32 alpha in [0, 1], scaled so that its longer side fills the square."""
    large = size * OVERSAMPLING
    canvas = Image.new("L", (2 * large, 2 * large))
    face = ImageFont.truetype(str(font_path(font)), large)
    ImageDraw.Draw(canvas).text((large, large), glyph_character(font, name), font=face, fill=255, anchor="mm")
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"glyph {name!r} of font {font!r} draws nothing")
    glyph = canvas.crop(box)
    factor = (size - 2) / max(glyph.size)
    width, height = (max(1, round(side * factor)) for side in glyph.size)
    glyph = glyph.resize((width, height), Image.Resampling.BOX)
    square = Image.new("L", (size, size))
    square.paste(glyph, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square, dtype=np.float32) / 255


@lru_cache(maxsize=4)
def glyph_atlas(font: str, size: int = GLYPH_SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """All nouns in one font: alpha (G, size, size) in [0, 1] and drawable (G,) bool, in the order of `load_nouns()`.

    A noun that the font cannot draw has an empty picture and drawable = False.
    """
    nouns = load_nouns()
    alpha = torch.zeros(len(nouns), size, size)
    drawable = torch.zeros(len(nouns), dtype=torch.bool)
    for index, noun in enumerate(nouns):
        name = getattr(noun, font)
        if name is not None:
            alpha[index] = torch.from_numpy(draw_glyph(font, name, size))
            drawable[index] = True
    return alpha, drawable


@lru_cache(maxsize=1)
def variant_names() -> tuple[tuple[str, ...], ...]:
    """Per noun, the first font's other glyphs of it, such as home_outline beside home; many have none."""
    table = getattr(import_module(FONTS["mdi"][0]), FONTS["mdi"][1])
    used = {noun.mdi for noun in load_nouns()}
    wanted = [[f"{noun.mdi}_{ending}" for ending in VARIANTS] for noun in load_nouns()]
    return tuple(
        tuple(n for n in names if n not in used and isinstance(getattr(table, n, None), str)) for names in wanted
    )


@lru_cache(maxsize=2)
def variant_atlas(size: int = GLYPH_SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All of them: alpha (V, size, size) in [0, 1], where each noun's begin (G,), and how many it has (G,) int64."""
    names = variant_names()
    alpha = torch.stack([torch.from_numpy(draw_glyph("mdi", name, size)) for some in names for name in some])
    number = torch.tensor([len(some) for some in names])
    return alpha, number.cumsum(0) - number, number
