"""What a user asks for: names, several phrases for one of them, or a file with one query per line.

K queries, each of one or more phrases; "cat|kitten|pet" is called by its first phrase and scores as its best one.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

FILE, SYNONYM = "@", "|"
EXAMPLE = "names such as ['cat', 'grass'], 'cat, grass', 'cat|kitten, grass', or '@names.txt' with one per line"


def parse_queries(queries: str | Sequence[str]) -> list[str]:
    """K queries with single spaces; one string is split at its commas, "@FILE" names a UTF-8 file of one query a line.

    Raises ValueError for no name, an empty one, one that is not text, and for duplicates (upper or lower case is no
    difference to CLIP's tokenizer), and for a file that is no text; FileNotFoundError for a missing one.
    """
    if isinstance(queries, str) and queries.strip().startswith(FILE):
        given = _lines(Path(queries.strip()[len(FILE) :]))
    else:
        given = queries.split(",") if isinstance(queries, str) else queries
    if not isinstance(given, Sequence) or not given or not all(isinstance(name, str) for name in given):
        raise ValueError(f"got queries {queries!r}, expected {EXAMPLE}")
    groups = [[" ".join(phrase.split()) for phrase in name.split(SYNONYM)] for name in given]
    every = [phrase for group in groups for phrase in group]
    for phrase in every:
        if not phrase:
            raise ValueError(f"got an empty name in queries {_short(queries)}, expected words")
        if any(unicodedata.category(letter) == "Cs" for letter in phrase):  # bytes of a command line that are no text
            raise ValueError(f"got the name {phrase!r} in queries, expected text in UTF-8")
    lower = [phrase.lower() for phrase in every]
    duplicates = sorted({phrase for phrase in every if lower.count(phrase.lower()) > 1})
    if duplicates:
        raise ValueError(f"got {', '.join(map(repr, duplicates))} more than once in queries, expected each name once")
    return [SYNONYM.join(group) for group in groups]


def phrases(queries: Sequence[str]) -> tuple[list[str], list[int]]:
    """The phrases of K queries of `parse_queries`, and the position of each phrase's query: P of both."""
    pairs = [(phrase, number) for number, query in enumerate(queries) for phrase in query.split(SYNONYM)]
    return [phrase for phrase, _ in pairs], [number for _, number in pairs]


def called(query: str) -> str:
    """What a query is called: the first of its phrases."""
    return query.split(SYNONYM)[0]


def _lines(path: Path) -> list[str]:
    """The lines of a file that hold more than whitespace."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of queries; expected text with one query per line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8, expected text with one query per line") from None
    found = [line for line in text.split("\n") if line.strip()]
    if not found:
        raise ValueError(f"{path}: got no queries, expected text with one query per line")
    return found


def _short(queries: str | Sequence[str], limit: int = 200) -> str:
    shown = repr(queries)
    return shown if len(shown) <= limit else f"{shown[:limit]} ..."
