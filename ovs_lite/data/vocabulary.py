"""Vocabularies: the class names of a data set, read from JSON and checked before anybody trusts them.

A file holds {name, source, count, ignore_index, background, classes: [{id, name, synonyms, is_thing, ...}]}.
`background` is null or {"class": id}; a class may say `seen` (annotated in training), `source_id` and `source_name`
(the number and the name that the data set's own files use). A file may say `void`, the numbers that the data set's
label maps give to pixels without a label (0, 255, several, none), and `others`: "background" where every number that is
neither a class's nor void means the background; else such a number is an error. Wrong or duplicate names cost mIoU
silently, so a bad file never loads.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vocabularies"
REQUIRED = ("name", "source", "count", "ignore_index", "background", "classes")
NOT_SHIPPED = {
    "context459": "its names come with PASCAL-Context: python data_scripts/make_context459.py LABELS.txt FILE.json "
    "makes it from the labels.txt of your copy; then give the path of FILE.json instead of the name"
}


@dataclass(frozen=True)
class Vocabulary:
    """K classes in the order of their ids. `category_id` in a record is a position in these tuples.

    ignore_index: value of unlabelled pixels in semantic maps, never a class id. background: class id or None.
    seen, source_id: None for a class whose file does not say. source_names: the names where it does not.
    void: numbers in the data set's label maps that mean no label. others_are_background: see `others` above.
    """

    name: str
    source: str
    ignore_index: int
    background: int | None
    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    is_thing: tuple[bool, ...]
    seen: tuple[bool | None, ...]
    source_id: tuple[int | None, ...]
    source_names: tuple[str, ...]
    void: tuple[int, ...] = ()
    others_are_background: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """Class id of a name, or of a synonym that belongs to one class only; None where there is none.

        Letter case is ignored. A class's own name goes before any synonym ("screen" is ADE20K's class 130, though
        "screen" is also a synonym of "screen door").
        """
        return _lookup(self).get(name.strip().lower())

    def index(self, name: str) -> int:
        """Class id of a name, as `find`. Raises ValueError with near misses."""
        found = self.find(name)
        if found is None:
            near = get_close_matches(name.strip().lower(), _lookup(self), n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"got class {name!r}, expected one of the {len(self)} names of {self.name!r}{hint}")
        return found

    def queries(self) -> list[str]:
        """A query for every class but the background: its name and the synonyms of its own, "cat|kitten"."""
        kept = [index for index in range(len(self)) if index != self.background]
        return ["|".join(n for n in (self.names[i], *self.synonyms[i]) if self.find(n) == i) for i in kept]

    def by_source_id(self) -> dict[int, int]:
        """The data set's own number of a class -> class id, closing the gaps in its numbering."""
        return {source: index for index, source in enumerate(self.source_id) if source is not None}


@lru_cache(maxsize=64)
def _lookup(vocabulary: Vocabulary) -> dict[str, int]:
    owners: dict[str, set[int]] = {}
    for index, synonyms in enumerate(vocabulary.synonyms):
        for synonym in synonyms:
            owners.setdefault(synonym.lower(), set()).add(index)
    lookup = {synonym: min(classes) for synonym, classes in owners.items() if len(classes) == 1}
    return lookup | {name.lower(): index for index, name in enumerate(vocabulary.names)}


def list_vocabularies() -> list[str]:
    """Names of the shipped vocabularies, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """A shipped vocabulary by name, or any JSON file of the same layout by path.

    Raises ValueError for an unknown name or a file that does not hold together, FileNotFoundError for a missing path.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and not text.endswith(".json"):
        if text in NOT_SHIPPED:
            raise ValueError(f"vocabulary {text!r} is not shipped: {NOT_SHIPPED[text]}")
        if text not in list_vocabularies():
            raise ValueError(f"got vocabulary {text!r}, expected one of {', '.join(list_vocabularies())} or a path")
        text = str(FOLDER / f"{text}.json")
    elif not Path(text).is_file():
        raise FileNotFoundError(f"no vocabulary file at {text}; shipped ones: {', '.join(list_vocabularies())}")
    try:
        return parse_vocabulary(json.loads(Path(text).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{text}: {error}") from None


def names_of(vocabularies: Iterable[str | Path]) -> list[str]:
    """The classes' names of several vocabularies, one after the other. Raises as `load_vocabulary`."""
    return [name for vocabulary in vocabularies for name in load_vocabulary(vocabulary).names]


def parse_vocabulary(content: Any) -> Vocabulary:
    """JSON content -> Vocabulary. Raises ValueError naming the first thing that is wrong."""
    missing = [key for key in REQUIRED if key not in content] if isinstance(content, dict) else list(REQUIRED)
    if missing:
        raise ValueError(f"got a vocabulary without {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    classes, count, ignore_index = content["classes"], content["count"], content["ignore_index"]
    if not isinstance(classes, list) or not classes or len(classes) != count:
        raise ValueError(f"got {len(classes) if isinstance(classes, list) else 'no list of'} classes, expected {count}")
    for position, entry in enumerate(classes):
        _check_class(entry, position)
    _check_unique([entry["name"].lower() for entry in classes], "class name")
    _check_unique([entry["source_id"] for entry in classes if "source_id" in entry], "source_id")
    _check_name(content["name"], "name")
    _check_name(content["source"], "source")
    if type(ignore_index) is not int or 0 <= ignore_index < count:
        raise ValueError(f"got ignore_index {ignore_index!r}, expected an integer outside the class ids 0..{count - 1}")
    background = _background(content["background"], count)
    _check_label_maps(content, background)
    return Vocabulary(
        name=content["name"],
        source=content["source"],
        ignore_index=ignore_index,
        background=background,
        names=tuple(entry["name"] for entry in classes),
        synonyms=tuple(tuple(entry["synonyms"]) for entry in classes),
        is_thing=tuple(entry["is_thing"] for entry in classes),
        seen=tuple(entry.get("seen") for entry in classes),
        source_id=tuple(entry.get("source_id") for entry in classes),
        source_names=tuple(entry.get("source_name", entry["name"]) for entry in classes),
        void=tuple(content.get("void", ())),
        others_are_background="others" in content,
    )


def _background(background: Any, count: int) -> int | None:
    if background is None:
        return None
    index = background.get("class") if isinstance(background, dict) else None
    if type(index) is not int or not 0 <= index < count:
        raise ValueError(f'got background {background!r}, expected null or {{"class": id}}, id in 0..{count - 1}')
    return index


def _check_label_maps(content: dict, background: int | None) -> None:
    """What `void` and `others` say of the numbers in label maps."""
    void = content.get("void", [])
    if not isinstance(void, list) or not all(type(value) is int for value in void):
        raise ValueError(f"got void {void!r}, expected a list of integers")
    _check_unique([*void, *(entry["source_id"] for entry in content["classes"] if "source_id" in entry)], "void number")
    if "others" in content and (content["others"] != "background" or background is None):
        raise ValueError(f'got others {content["others"]!r}, expected "background" in a file that has one, or nothing')


def _check_class(entry: Any, position: int) -> None:
    if not isinstance(entry, dict) or any(key not in entry for key in ("id", "name", "synonyms", "is_thing")):
        raise ValueError(f"got class {entry!r}, expected an object with id, name, synonyms, is_thing")
    if type(entry["id"]) is not int or entry["id"] != position:
        raise ValueError(f"got id {entry['id']!r} at position {position}, expected ids 0, 1, 2, ... in order")
    _check_name(entry["name"], f"name of class {position}")
    _check_name(entry.get("source_name", entry["name"]), f"source_name of {entry['name']!r}")
    if not isinstance(entry["synonyms"], list):
        raise ValueError(f"got synonyms {entry['synonyms']!r} of {entry['name']!r}, expected a list")
    for synonym in entry["synonyms"]:
        _check_name(synonym, f"synonym of {entry['name']!r}")
    _check_unique([name.lower() for name in (entry["name"], *entry["synonyms"])], f"synonym of {entry['name']!r}")
    if not isinstance(entry["is_thing"], bool) or not isinstance(entry.get("seen", False), bool):
        raise ValueError(f"got is_thing or seen of {entry['name']!r} that is neither true nor false")
    if type(entry.get("source_id", 0)) is not int:
        raise ValueError(f"got source_id {entry['source_id']!r} of {entry['name']!r}, expected an integer")


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str) or not name or name != " ".join(name.split()):
        raise ValueError(f"got {what} {name!r}, expected text without leading, trailing or repeated whitespace")


def _check_unique(values: list, what: str) -> None:
    duplicates = [value for value, times in Counter(values).items() if times > 1]
    if duplicates:
        raise ValueError(f"got {what} {', '.join(map(repr, duplicates))} more than once")
