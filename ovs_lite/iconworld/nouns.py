"""The nouns of IconWorld: what can be drawn, by which emoji and glyphs, and which are annotated in training."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Noun:
    """A drawable thing.

    noun, plural: what a person says. emoji: the emoji that draw it, by Noto's names; empty: no emoji does.
    mdi, fa: its glyph in Material Design Icons and in Font Awesome (None: cannot draw it).
    seen: annotated with masks in `icon-coco`. made: may be turned in hue; grown things have the colours they have.
    kind: animal, vehicle, food, ...
    """

    noun: str
    plural: str
    emoji: tuple[str, ...]
    mdi: str | None
    fa: str | None
    seen: bool
    made: bool
    kind: str


@lru_cache(maxsize=1)
def load_nouns() -> tuple[Noun, ...]:
    """All nouns in file order; everything else refers to them by index.

    Raises ValueError for whitespace around a name, for a noun, emoji or glyph that occurs twice, and for a noun that
    nothing draws.
    """
    entries = json.loads((Path(__file__).parent / "nouns.json").read_text(encoding="utf-8"))
    nouns = tuple(Noun(**entry | {"emoji": tuple(entry["emoji"])}) for entry in entries)
    for field in ("noun", "emoji", "mdi"):
        values = [getattr(noun, field) for noun in nouns]
        names = [name for value in values for name in (value if field == "emoji" else [value]) if name is not None]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"nouns.json: {field} must be unique, got more than once: {', '.join(repeated)}")
        if any(name != name.strip() or not name for name in names):
            raise ValueError(f"nouns.json: {field} must not be empty or padded with whitespace")
    undrawn = [noun.noun for noun in nouns if not noun.emoji and noun.mdi is None]
    if undrawn:
        raise ValueError(f"nouns.json: nothing draws {', '.join(undrawn)}; name an emoji or a glyph")
    return nouns
