"""A split made in parts, each a small split of its own: any number of processes work at once, each on what no other
has; a run that was stopped resumes; and whatever their number, the same bytes come out."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Any

from tqdm.auto import tqdm

from ovs_lite.data.record import MANIFEST, is_made, load_split, read_count, write_split
from ovs_lite.files import write_json
from ovs_lite.locks import exclusive

PART = 64  # sources
Made = Callable[[range], Iterable[dict[str, Any]]]


def write_in_parts(
    folder: str | Path, made: Made, count: int, creator: dict[str, Any], columns: str, progress: bool, name: str
) -> bool:
    """Write what is made of `count` sources to `folder`. Returns whether it is complete.

    made: numbers of sources -> their records, any number of each. creator: see `write_split`; all that decides them.
    columns: see `write_split`. name: for the progress bar.
    Start it several times to share the work; the one that ends last puts the parts together, and False means that
    others still work. Parts that lie there from a run that was stopped are kept, unless `creator` differs. Nothing is
    done where `folder` is complete. Raises FileExistsError where it comes from elsewhere, ValueError for no record.
    """
    folder = Path(folder)
    if folder.exists():
        if is_made(folder, creator):
            return True
        raise FileExistsError(f"{folder} exists, and comes from other settings; remove it to make it again")
    home, starts = folder.with_name(f".{folder.name}.parts"), range(0, count, PART)
    parts = [home / f"{start:09d}" for start in starts]
    for start, part in zip(tqdm(starts, name, unit=" parts", disable=not progress), parts, strict=True):
        with suppress(BlockingIOError), exclusive(part.parent, f".{part.name}.work.lock"):
            if not is_made(part, creator):
                _write_part(list(made(range(start, min(start + PART, count)))), part, creator, columns)
    return _joined(parts, folder, creator, columns, progress)


def _write_part(records: list[dict[str, Any]], part: Path, creator: dict[str, Any], columns: str) -> None:
    if records:
        write_split(records, part, creator=creator, columns=columns, overwrite=True, progress=False)
        return
    rmtree(part, ignore_errors=True)
    part.mkdir()
    write_json(part / MANIFEST, {"count": 0, "columns": [], "creator": creator, "files": {}})


def _joined(parts: Sequence[Path], folder: Path, creator: dict[str, Any], columns: str, progress: bool) -> bool:
    """Put all parts together, once; False where another process still works, or puts them together."""
    with suppress(BlockingIOError), exclusive(folder.parent, f".{folder.name}.join.lock"):
        if folder.exists():
            return True
        if not all(is_made(part, creator) for part in parts):
            return False
        counts = [read_count(part) for part in parts]
        records = chain.from_iterable(load_split(part) for part, some in zip(parts, counts, strict=True) if some)
        write_split(records, folder, creator=creator, columns=columns, total=sum(counts), progress=progress)
        rmtree(parts[0].parent)
        return True
    return False
