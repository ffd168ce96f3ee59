"""Archives of strangers, unpacked into a folder and nowhere else.

Every member is looked at before the first byte is written. Refused: names that are absolute, climb ("..") or hold what
a file name must not; links, devices and pipes; two names that a file system without letter case takes for one; more
than the archive may hold. What is unpacked lies in a hidden folder until all of it is there, then it is moved.
"""

import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm.auto import tqdm

from ovs_lite.files import check_space
from ovs_lite.locks import exclusive

MAX_MEMBERS = 5_000_000
MAX_RATIO = 200  # unpacked bytes for each byte of the archive; label maps and JSON reach about 20
MIN_ALLOWED = 1 << 20  # bytes that a tiny archive may hold whatever its ratio
FORBIDDEN = set("\\:") | {chr(code) for code in range(32)}  # separators of other systems, what steers a terminal
LEFT_OUT = ("__MACOSX", ".DS_Store")
BLOCK = 1 << 20
DAMAGED = (  # what readers of archives raise for damage; NotImplementedError: a compression that nobody has
    zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, struct.error,
    UnicodeDecodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: its checked name, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def unpack(path: str | Path, folder: str | Path, most_bytes: int | None = None, progress: bool = True) -> int:
    """Unpack a zip or tar file (also .tar.gz, .tgz, .tar.bz2, .tar.xz) into `folder`; returns the number of files.

    most_bytes: how much it may hold unpacked; default 200 times the file, 1 MiB at least.
    Files that are there already are replaced. Raises FileNotFoundError, ValueError naming archive and member, or
    OSError where the disk is full or another process unpacks it there; then `folder` holds what it held before.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"no archive at {path}")
    allowed = most_bytes if most_bytes is not None else max(MIN_ALLOWED, MAX_RATIO * path.stat().st_size)
    temporary = folder / f".unpacking-{path.name}"
    with exclusive(folder, f".{path.name}.unpack.lock"):  # sets that share an archive share this folder, too
        shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
        try:
            with _opened(path) as source:
                count, total = _check_members(path, source(), allowed)
                temporary.mkdir()
                check_space(folder, total)
                with tqdm(total=total, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
                    for member in source():
                        _write(member, temporary, path, bar)
            _check_way(temporary, folder)
            _move_into(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return count


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[], Iterator[Member]]]:
    """A function that goes through the archive's files from the start; damage anywhere is a ValueError."""
    try:
        if zipfile.is_zipfile(path) and not _is_tar(path):  # a tar whose last member is a zip ends like one
            with zipfile.ZipFile(path) as archive:
                yield lambda: _zip_members(path, archive)
        else:
            yield lambda: _tar_members(path)
    except DAMAGED as error:
        raise ValueError(f"{path} is no whole zip or tar file: {type(error).__name__}: {error}") from None
    except OSError as error:  # gzip's BadGzipFile and lzma's carry no number
        if error.errno is not None:
            raise
        raise ValueError(f"{path} is no whole zip or tar file: {error}") from None


def _is_tar(path: Path) -> bool:
    """Whether a file begins as a tar that is not compressed does."""
    with open(path, "rb") as stream:
        return stream.read(tarfile.BLOCKSIZE)[257:262] == b"ustar"


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.orig_filename != info.filename and "\0" in info.orig_filename:
            raise _refusal(path, info.orig_filename, "a name with a NUL character")
        name = _checked_name(path, info.filename)
        if info.is_dir() or _left_out(name):
            continue
        if kind not in (0, stat.S_IFREG):
            raise _refusal(path, name, "a link or a device")
        if info.flag_bits & 1:
            raise _refusal(path, name, "encrypted")
        yield Member(name, info.file_size, lambda info=info: archive.open(info))


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            archive.members = []  # else every header ever read is kept
            name = _checked_name(path, info.name)
            if info.isdir() or _left_out(name):
                continue
            if not info.isreg() or info.issparse():
                raise _refusal(path, name, "a link, a device, a pipe or a sparse file")
            yield Member(name, info.size, lambda info=info: archive.extractfile(info) or nullcontext())
        archive.fileobj.seek(archive.offset)  # tarfile takes a header that is damaged for the end
        if archive.fileobj.read(tarfile.BLOCKSIZE) not in (b"", bytes(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no header at byte {archive.offset}")
        while archive.fileobj.read(BLOCK):  # to the end, where gzip and xz keep their checksum
            pass


def _checked_name(path: Path, name: str) -> str:
    """The name without "./" and a closing slash. Raises ValueError for one that may not be written."""
    plain = name.removeprefix("./").rstrip("/") if name != "/" else name
    parts = PurePosixPath(plain).parts
    if plain.startswith("/") or ".." in parts:
        raise _refusal(path, name, "a name that leaves the folder")
    if not parts and plain:
        raise _refusal(path, name, "no name")
    if FORBIDDEN & set(plain) or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _refusal(path, name, "a name that not every system can write")
    return "/".join(parts)


def _left_out(name: str) -> bool:
    """Whether a member is only what macOS adds to archives."""
    return any(part in LEFT_OUT for part in PurePosixPath(name).parts)


def _check_members(path: Path, members: Iterator[Member], allowed: int) -> tuple[int, int]:
    """(files, bytes) of an archive of which every member may be written. Raises ValueError."""
    files: set[str] = set()
    folders: dict[str, str] = {}
    total = 0
    for member in members:
        folded = member.name.casefold()
        if folded in files or folded in folders:
            raise _refusal(path, member.name, "a name that comes twice (letter case aside)")
        for parent in list(PurePosixPath(member.name).parents)[:-1]:
            text = parent.as_posix()
            if folders.setdefault(text.casefold(), text) != text or text.casefold() in files:
                raise _refusal(path, member.name, f"in a folder {text!r} whose name comes twice (letter case aside)")
        files.add(folded)
        total += member.size
        if len(files) > MAX_MEMBERS or total > allowed:
            limits = f"at most {MAX_MEMBERS} files and {allowed} bytes"
            raise ValueError(f"{path} holds {len(files)} files and {total} bytes or more, expected {limits}")
    if not files:
        raise ValueError(f"{path} holds no file")
    return len(files), total


def _write(member: Member, folder: Path, path: Path, bar: Any) -> None:
    """Write one file, of exactly the size that its header gives."""
    target, left = folder / member.name, member.size
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(target, "xb") as stream:
        while block := source.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise _refusal(path, member.name, "longer than its header says")
            stream.write(block)
            bar.update(len(block))
    if left:
        raise _refusal(path, member.name, f"{left} bytes shorter than its header says")


def _check_way(source: Path, folder: Path) -> None:
    """Raise ValueError, before anything is moved, for what `_move_into` could not replace."""
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if target.is_symlink() or (target.exists() and path.is_dir() != target.is_dir()):
            raise ValueError(f"{target} is in the way of what is unpacked, a link or of another kind; move it")
        if path.is_dir() and target.exists():
            _check_way(path, target)


def _move_into(source: Path, folder: Path) -> None:
    """Rename everything of `source` into `folder`; folders that are there are entered, files replaced."""
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if path.is_dir() and target.exists():
            _move_into(path, target)
        else:
            os.replace(path, target)


def _refusal(path: Path, name: str, why: str) -> ValueError:
    return ValueError(f"{path}: member {name[:200]!r} is {why}; nothing was unpacked, get the archive from its source")
