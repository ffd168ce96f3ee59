"""The nouns of IconWorld: what can be drawn, in which font, and which of them are annotated in training."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Noun:
    """A drawable thing. mdi, fa: its glyph in Material Design Icons and in Font Awesome (None: cannot draw it).
    seen: annotated with masks in `icon-coco`. kind: animal, vehicle, food, ..."""

    noun: str
    plural: str
    mdi: str
    fa: str | None
    seen: bool
    kind: str


@lru_cache(maxsize=1)
def load_nouns() -> tuple[Noun, ...]:
    """All nouns in file order; everything else refers to them by index.

    Raises ValueError for blanks or for a noun or glyph that occurs twice.
    """
    entries = json.loads((Path(__file__).parent / "nouns.json").read_text(encoding="utf-8"))
    nouns = tuple(Noun(**entry) for entry in entries)
    for field in ("noun", "mdi"):
        values = [getattr(noun, field) for noun in nouns]
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"nouns.json: {field} must be unique, got more than once: {', '.join(repeated)}")
        if any(value != value.strip() or not value for value in values):
            raise ValueError(f"nouns.json: {field} must not be blank or padded with blanks")
    return nouns
