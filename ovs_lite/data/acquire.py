"""From the catalogue to the disk: what of a set is there, what is missing, bringing it, and what that takes.

A file's archive lies in downloads/FOLDER; once it is unpacked, FOLDER/.got/NAME.json says so, and a second run does
nothing. Where the user put the unpacked files themselves, the archive is not missed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ovs_lite.data.archives import unpack
from ovs_lite.data.catalogue import Catalogue, DataSet, WebFile, downloads_folder
from ovs_lite.data.download import download
from ovs_lite.files import write_json

GOT = ".got"
HERE, ARCHIVE, MISSING = "here", "archive", "missing"


@dataclass(frozen=True)
class Step:
    """What was done about a file, or what the user has to do (`todo`)."""

    file: WebFile
    text: str
    todo: bool = False


@dataclass(frozen=True)
class Amount:
    """Bytes as far as they are known, and the names of the files whose size is not."""

    known: int
    unknown: tuple[str, ...]


def state_of(file: WebFile) -> str:
    """HERE: it is usable. ARCHIVE: it lies there and must be unpacked. MISSING."""
    folder = downloads_folder(file)
    if _note(file).exists() and _gives(file):
        return HERE
    if file.unpack is not None and (folder / file.file_name).exists():
        return ARCHIVE
    return HERE if _gives(file) else MISSING


def acquire(catalogue: Catalogue, data_set: DataSet, discard: bool = False, progress: bool = True) -> Iterator[Step]:
    """Bring what is missing of a set, as far as its licence lets a program do that, and yield a step for each file.

    discard: remove archives once they are unpacked. Raises ValueError for a damaged file, OSError as `download`.
    """
    for file in catalogue.files_of(data_set):
        folder, state = downloads_folder(file), state_of(file)
        archive = folder / file.file_name
        if state == HERE:
            yield Step(file, f"{', '.join(file.gives)} in {folder}: there already")
            continue
        if state == MISSING and file.url is None:
            where = f"put {file.file_name} into {folder}, or unpacked: {', '.join(file.gives)}"
            yield Step(file, f"{file.steps} Page: {data_set.page}. Then {where}", todo=True)
            continue
        if file.url is not None:
            download(file.url, archive, file.expected, progress)
        elif archive.exists():
            file.expected.check(archive, archive)
        yield Step(file, _unpacked(file, archive, discard, progress))


def _unpacked(file: WebFile, archive: Path, discard: bool, progress: bool) -> str:
    folder = archive.parent
    if file.unpack is None:
        return f"{archive}: downloaded"
    count = unpack(archive, folder / file.unpack, progress=progress)
    for name in file.nested:
        count += unpack(folder / name, (folder / name).parent, progress=progress) - 1
        (folder / name).unlink()
    if not _gives(file):
        absent = [path for path in file.gives if not any(folder.glob(path))]
        raise ValueError(f"{archive} does not hold {', '.join(absent)}: it is another file than the catalogue's")
    write_json(_note(file), {"url": file.url, "bytes": archive.stat().st_size, "files": count})
    if discard:
        archive.unlink()
    return f"{archive}: {count} files unpacked into {folder / file.unpack}"


def acquire_links(
    catalogue: Catalogue, data_set: DataSet, links: Path, limit: int | None = None, progress: bool = True
) -> Iterator[Step]:
    """Bring files of a set whose addresses the user was given: lines of a file name, a tab and an address.

    limit: the first so many. Raises FileNotFoundError, ValueError for a set that takes no links or a line that fits
    none of its files.
    """
    files = [file for file in catalogue.files_of(data_set) if file.url is None and "*" in file.file_name]
    if not files:
        raise ValueError(
            f"{data_set.name} takes no --links; its files have addresses, or steps: ovs-lite data get NAME"
        )
    for name, url in _links(links, files)[:limit]:
        file = next(file for file in files if fnmatch(name, file.file_name))
        fresh = download(url, downloads_folder(file) / name, progress=progress)
        yield Step(file, f"{downloads_folder(file) / name}: {'downloaded' if fresh else 'there already'}")


def _links(path: Path, files: Sequence[WebFile]) -> list[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"no list of links at {path}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        name, _, url = line.strip().partition("\t")
        if not line.strip() or number == 1 and "://" not in line:
            continue  # the head of the table
        if Path(name).name != name or not any(fnmatch(name, file.file_name) for file in files):
            wanted = " or ".join(file.file_name for file in files)
            raise ValueError(
                f"{path}, line {number}: got {line[:80]!r}, expected a name like {wanted}, a tab, an address"
            )
        found.append((name, url.strip()))
    return found


def to_download(files: Iterable[WebFile]) -> Amount:
    """What is still to come of these files, each counted once."""
    missing = [file for file in dict.fromkeys(files) if state_of(file) == MISSING]
    return _amount(missing)


def to_unpack(files: Iterable[WebFile]) -> Amount:
    """What archives that are not unpacked yet will take: about their own size, for images and maps are compressed."""
    return _amount([f for f in dict.fromkeys(files) if f.unpack is not None and state_of(f) != HERE])


def total_of(files: Iterable[WebFile]) -> Amount:
    """The size of these files, there or not."""
    return _amount(list(dict.fromkeys(files)))


def _amount(files: Sequence[WebFile]) -> Amount:
    unknown = tuple(file.file_name for file in files if file.bytes is None)
    return Amount(sum(file.bytes or 0 for file in files), unknown)


def _gives(file: WebFile) -> bool:
    folder = downloads_folder(file)
    return all(any(folder.glob(path)) for path in file.gives)


def _note(file: WebFile) -> Path:
    return downloads_folder(file) / GOT / f"{file.file_name.replace('*', '_')}.json"
