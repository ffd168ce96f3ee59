"""Names of shards as users of webdataset and open_clip write them: `cc3m-{000..331}.tar`, `{a,b}.tar`, `a::b`, `*`."""

import glob
import os
import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

UNION = "::"
LONGEST = 255  # bytes of a file's name; a list in braces may be longer
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
Find = Callable[[str], Path]


def union_parts(source: str) -> list[str]:
    """The sources of "a::b", in order; of any other name itself. Raises ValueError where one of them is empty."""
    parts = source.split(UNION) if source else [source]
    if not all(parts) and len(parts) > 1:
        raise ValueError(f"got {source!r}, expected names on both sides of '::', such as cc3m/*.tar::cc12m/*.tar")
    return parts


def shard_paths(sources: Sequence[str | Path], find: Find = Path) -> list[Path]:
    """Absolute paths of existing files, each once, in the order given.

    sources: names, patterns with *, ? and [ ], with braces (numbers up or down, zeros kept, or choices; several of them
        give all combinations), and unions. A name that exists is no pattern.
    find: name -> path, of names that are relative to something else than the working folder.
    Raises FileNotFoundError for a name or pattern without a file, ValueError for one that can have none.
    """
    names = [name for source in sources for name in union_parts(str(source))]
    paths = list(chain.from_iterable(_expanded(name, find) for name in names))
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = f"no shard at {missing[0]} ({len(missing)} missing)" if missing else f"no shard in {list(sources)}"
        raise FileNotFoundError(f"{what}; expected tar files of images and texts, as img2dataset writes them")
    return list(dict.fromkeys(paths))


def _expanded(pattern: str, find: Find) -> list[Path]:
    braces = BRACES.search(pattern)
    if not braces or len(os.fsencode(max(pattern.split("/"), key=len))) <= LONGEST:
        path = _absolute(find(pattern))
        if path.exists():
            return [path]
    if pattern.startswith("pipe:") or "://" in pattern:
        given = f"got {pattern!r}, expected files: pairs are read at any place of a shard, not in one stream"
        raise ValueError(f"{given}; download the shards first")
    if braces:
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        return list(chain.from_iterable(_expanded(before + one + after, find) for one in _choices(braces)))
    if pattern.count("{") != pattern.count("}"):
        raise ValueError(f"got {pattern!r}, expected braces that close, such as cc3m-{{000..331}}.tar or {{a,b}}.tar")
    if any(letter in pattern for letter in "*?["):
        return [Path(found) for found in sorted(glob.glob(str(path), recursive=True))] or [path]
    return [path]


def _choices(braces: re.Match) -> list[str]:
    """What stands in a brace: "008..010" -> 008, 009, 010; "a,b" -> a, b."""
    first, last, listed = braces.groups()
    if listed is not None:
        return listed.split(",")
    step = 1 if int(first) <= int(last) else -1
    padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))
