"""Text on images: DejaVu Sans, which comes with matplotlib, so an image looks the same on every machine.

Letters that it lacks (猫) come from a font of the machine; where none has them, their numbers stand for them (U+732B).
"""

import unicodedata
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
UNFIT = ("blank", "color", "emoji", "lastresort")  # fonts of empty, equal or coloured glyphs, by parts of their names


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """The font of a text at `size` pixels: DejaVu Sans wherever it has all letters, or no other font has."""
    return _opened(font_file(text) or DEJAVU, size)


def drawable(texts: Sequence[str]) -> list[str]:
    """The texts as they can be drawn: U+732B for each letter of which no font has a glyph. Warns of such letters."""
    lacking: dict[str, str] = {}
    found = []
    for text in texts:
        if font_file(text) is None:
            numbers = {letter: f"U+{ord(letter):04X}" for letter in text if not _has(DEJAVU, letter)}
            spaced = "".join(f" {numbers[letter]} " if letter in numbers else letter for letter in text)
            text = " ".join(part for part in spaced.split(" ") if part)
            lacking |= numbers
        found.append(text)
    if lacking:
        shown = ", ".join(f"{letter!r} as {number}" for letter, number in list(lacking.items())[:8])
        more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
        advice = "install one that has them, such as Noto Sans CJK"
        warnings.warn(f"no font of this machine can draw all letters: {shown}{more}; {advice}", stacklevel=3)
    return found


@lru_cache(maxsize=4096)
def font_file(text: str) -> Path | None:
    """The font that has a glyph of every letter: DejaVu Sans, else the machine's first such; None where none has."""
    if _has(DEJAVU, text):
        return DEJAVU
    fonts = _fonts_of_the_machine()
    for place, path in enumerate(fonts):
        if _has(path, text):
            fonts.insert(0, fonts.pop(place))  # the next text is likely to be in the same script
            return path
    return None


@lru_cache(maxsize=1)
def _fonts_of_the_machine() -> list[Path]:
    """Files of scalable fonts, the regular ones first."""
    from matplotlib.font_manager import findSystemFonts  # looks at all fonts, once

    found = [Path(name) for name in findSystemFonts() if not any(part in Path(name).name.lower() for part in UNFIT)]
    return sorted(found, key=lambda path: ("regular" not in path.name.lower(), path.name, path))


def _has(path: Path, text: str) -> bool:
    """Whether a font has a glyph of every letter that leaves a trace; False for a file that is no font."""
    needed = {ord(letter) for letter in text if not _traceless(letter)}
    if path == DEJAVU:
        return needed <= _dejavu_letters()
    try:
        face = FT2Font(str(path))
        return bool(face.scalable) and all(face.get_char_index(code) for code in needed)
    except (OSError, RuntimeError):
        return False


@lru_cache(maxsize=1)
def _dejavu_letters() -> frozenset[int]:
    return frozenset(FT2Font(str(DEJAVU)).get_charmap())


def _traceless(letter: str) -> bool:
    """Whitespace, joiners and variation selectors; and the ellipsis of `shorten`, which is drawn with any font."""
    return letter.isspace() or letter == "…" or unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"


@lru_cache(maxsize=64)
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    return int(font(size, text).getlength(text)) + 1


def shorten(text: str, size: int, limit: int) -> str:
    """One line of at most `limit` pixels: whitespace becomes single spaces, the end becomes an ellipsis."""
    line = " ".join(text.split())
    if width(line, size) <= limit:
        return line
    while line and width(line + "…", size) > limit:
        line = line[:-1]
    return line.rstrip() + "…"


def wrap(text: str, size: int, limit: int, lines: int) -> list[str]:
    """Break at spaces into at most `lines` lines of at most `limit` pixels; what is left over ends in an ellipsis."""
    words, done = text.split(), []
    while words and len(done) < lines - 1:
        count = 1
        while count < len(words) and width(" ".join(words[: count + 1]), size) <= limit:
            count += 1
        done.append(shorten(" ".join(words[:count]), size, limit))
        words = words[count:]
    return done + ([shorten(" ".join(words), size, limit)] if words else [])
