"""Text on images: DejaVu Sans, which comes with matplotlib, so an image looks the same on every machine."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at `size` pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    return int(font(size).getlength(text)) + 1


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
