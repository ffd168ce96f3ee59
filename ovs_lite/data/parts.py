"""A split made in parts, each a small split of its own: any number of processes work at once, each on what no other
has; a run that was stopped resumes; and whatever their number, the same bytes come out.

Who works on what is settled by locks; or by number, for an array of jobs on machines that share nothing but a folder
(`Share`): job 3 of 64 makes every 64th part from the third one on, and one more job puts all of them together.
"""

import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Any

from tqdm.auto import tqdm

from ovs_lite.data.record import MANIFEST, is_made, iter_encoded, load_split, read_count, write_split
from ovs_lite.distributed import Interrupts
from ovs_lite.files import write_json
from ovs_lite.locks import exclusive

PART = 64  # sources
SHOWN = 8  # missing jobs that an error names
Made = Callable[[range], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Share:
    """Job `number` of `count`, from 1; 0: the one that puts together what they made. Raises ValueError for others."""

    number: int
    count: int

    def __post_init__(self):
        if not 0 <= self.number <= self.count or self.count < 1:
            raise ValueError(f"got part {self.number}/{self.count}, expected K/N with K from 1 to N, such as 3/64")


def until_stopped(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records of a split that is written in one go. SIGTERM ends this process by SystemExit(0) at the next one, and
    nothing of the split remains."""
    with Interrupts(signal.SIGTERM) as interrupts:
        for record in records:
            if interrupts.number:
                interrupts.end("stopped by a signal; the same command keeps the splits that are complete")
            yield record


def write_in_parts(
    folder: str | Path, made: Made, count: int, creator: dict[str, Any], columns: str, progress: bool, name: str,
    share: Share | None = None, size: int | None = None, about: dict[str, Any] | None = None,
) -> bool:  # fmt: skip
    """Write what is made of `count` sources to `folder`. Returns whether it is complete.

    made: numbers of sources -> their records, any number of each. creator: see `write_split`; all that decides them.
    columns: see `write_split`. name: for the progress bar.
    Start it several times to share the work; the one that ends last puts the parts together, and False means that
    others still work. Parts that lie there from a run that was stopped are kept, unless `creator` differs. Nothing is
    done where `folder` is complete. SIGTERM ends this process after its part by SystemExit(0); others work on. Raises
    FileExistsError where `folder` comes from elsewhere, ValueError for no record.
    share: make the parts of this job only, no lock being needed, and put nothing together; or only put them together,
    which raises FileNotFoundError naming the jobs of which a part is missing. Of more jobs than parts the last ones
    have nothing to do. size: sources of a part (PART). about: what decides a part beside `creator`, such as which
    sources there were; parts of others are made again.
    """
    folder, of_part = Path(folder), creator | (about or {})
    if folder.exists():
        if is_made(folder, creator):
            return True
        raise FileExistsError(f"{folder} exists, and comes from other settings; remove it to make it again")
    home, size = folder.with_name(f".{folder.name}.parts"), size or PART
    parts = {home / f"{numbers.start:09d}": numbers for numbers in parts_of(count, size)}

    def make(part: Path) -> None:
        if interrupts.number:
            interrupts.end("stopped by a signal; the same command resumes with the parts that are made")
        if not is_made(part, of_part):
            _write_part(iter(made(parts[part])), part, of_part, columns)

    with Interrupts(signal.SIGTERM) as interrupts:
        if share and share.number:
            _make_share(list(parts), make, share, tqdm(desc=name, unit=" parts", disable=not progress))
            return False
        if share:
            _check_all_made(list(parts), folder, of_part, share.count)
        for part in tqdm(() if share else parts, name, unit=" parts", disable=not progress):
            with suppress(BlockingIOError), exclusive(part.parent, f".{part.name}.work.lock"):
                make(part)
        return _joined(list(parts), folder, creator, of_part, columns, progress)


def parts_of(count: int, size: int) -> list[range]:
    """The numbers of the sources of each part."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _make_share(parts: Sequence[Path], make: Callable[[Path], None], share: Share, bar: tqdm) -> None:
    """Make the parts of one job; nobody else writes them, so that a file system without locks is no worse."""
    mine = parts[share.number - 1 :: share.count]
    bar.reset(len(mine))
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no locks there")
        for part in mine:
            part.parent.mkdir(parents=True, exist_ok=True)
            make(part)
            bar.update()


def _check_all_made(parts: Sequence[Path], folder: Path, creator: dict[str, Any], count: int) -> None:
    missing = sorted({number % count + 1 for number, part in enumerate(parts) if not is_made(part, creator)})
    if missing:
        named = ", ".join(f"{job}/{count}" for job in missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        given = f"{folder}: got parts of {count - len(missing)} of {count} jobs with these settings"
        raise FileNotFoundError(f"{given}; missing: --part {named}; run these again, then put all of them together")


def _write_part(records: Iterator[dict[str, Any]], part: Path, creator: dict[str, Any], columns: str) -> None:
    first = next(records, None)
    if first is not None:
        write_split(chain([first], records), part, creator=creator, columns=columns, overwrite=True, progress=False)
        return
    rmtree(part, ignore_errors=True)
    part.mkdir()
    write_json(part / MANIFEST, {"count": 0, "columns": [], "creator": creator, "files": {}})


def _joined(
    parts: Sequence[Path], folder: Path, creator: dict[str, Any], of_part: dict[str, Any], columns: str, progress: bool
) -> bool:
    """Put all parts together, once; False where another process still works, or puts them together."""
    for _ in range(2):  # another one may have looked just before the last part was there
        if _join(parts, folder, creator, of_part, columns, progress):
            return True
        time.sleep(1)
    return False


def _join(
    parts: Sequence[Path], folder: Path, creator: dict[str, Any], of_part: dict[str, Any], columns: str, progress: bool
) -> bool:
    with suppress(BlockingIOError), exclusive(folder.parent, f".{folder.name}.join.lock"):
        if folder.exists():
            return True
        if not all(is_made(part, of_part) for part in parts):
            return False
        counts = [read_count(part) for part in parts]
        records = chain.from_iterable(
            iter_encoded(load_split(part)) for part, some in zip(parts, counts, strict=True) if some
        )
        write_split(records, folder, creator=creator, columns=columns, total=sum(counts), progress=progress)
        rmtree(parts[0].parent)
        return True
    return False
