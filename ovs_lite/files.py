"""Files: written so that a crash leaves the old one or the new one; their digests; the folders where things lie.

Also how names and the system's errors about files are shown (`printable`, `one_line`).
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

PROBE = bytes(1 << 16)
# Of the system's errors, by name: not every system knows all of them.
CURES = {
    "ENOSPC": "free some space", "EDQUOT": "free some space", "ENAMETOOLONG": "choose a shorter name",
    "EACCES": "see who may read and write it", "EPERM": "see who may read and write it",
    "EROFS": "choose a place that can be written", "EISDIR": "choose another name", "ENOTDIR": "choose another name",
    "EEXIST": "choose another name",
}  # fmt: skip
# What a name must not send to a terminal: control characters, other line ends, reversed text, undecodable bytes.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@contextmanager
def replacing(path: str | Path):
    """A temporary path next to `path`; renamed to `path` when the block succeeds, removed when it fails.

    Raises OSError naming `path` where it cannot be written: what can be known is known before the block begins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        with suppress(FileNotFoundError):  # no rename onto a folder, nor onto a pipe or device, which it would remove
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "something that is no file is there")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix[-20:])
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "r+b") as stream:  # Windows syncs no file that is open for reading only
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and error.filename not in (None, str(temporary), temporary):
            raise  # about another file
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


class _Enough(Exception):
    """Ends a write that was only a trial."""


def check_writable(path: str | Path) -> None:
    """Try to write a file at `path` and leave nothing. Raises OSError, before the work whose result goes there."""
    with suppress(_Enough), replacing(path) as temporary:
        temporary.write_bytes(PROBE)
        raise _Enough


def existing_folder(folder: str | Path) -> Path:
    """The folder itself, or the nearest one above it that exists; absolute."""
    folder = Path(folder).absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def check_space(path: str | Path, needed: int) -> None:
    """Raise OSError (ENOSPC, naming `path`) where fewer than `needed` bytes are free there."""
    free = shutil.disk_usage(existing_folder(path)).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"No space left on device: {needed} bytes needed, {free} free", str(path))


def printable(text: Any) -> str:
    """Text as a terminal may show it: what would steer the terminal is escaped, endless words are shortened."""
    shown = UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))
    return re.sub(r"\S{300,}", lambda found: f"{found[0][:80]}...{found[0][-80:]}", shown)


def one_line(error: BaseException) -> str:
    """What an error says, in one printable line; of the system's errors the file, the reason and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename2 or error.filename,) if name is not None]
        cures = [CURES[name] for name in (errno.errorcode.get(error.errno, ""),) if name in CURES]
        text = "; ".join([": ".join([*names, error.strerror]), *cures])
    return printable(" ".join(text.split()))


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically; what UTF-8 has no bytes for (parts of undecodable file names) is escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically: indented by two spaces, keys in the order given, NaN as null."""
    write_text(path, to_json(content, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; {} where the file is absent or truncated."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON text; NaN and infinities become null, which JSON lacks."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, default=float)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, Real) and not isinstance(content, int) and not isfinite(content) else content


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file by an algorithm of hashlib: sha256, md5, ..."""
    total = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def project_root() -> Path:
    """The nearest folder, from the working one upwards, that holds pyproject.toml and notebooks/; else the working one.

    So `jupyter lab notebooks`, whose kernels work inside notebooks/, finds the same data and runs as the command line.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return Path(os.path.relpath(folder, here))
    return Path(".")


def data_root() -> Path:
    """Where prepared data lies: $OVS_DATA, else data/ in the project."""
    return Path(os.environ.get("OVS_DATA") or project_root() / "data")


def runs_root() -> Path:
    """Where runs leave their products: $OVS_RUNS, else runs/ in the project."""
    return Path(os.environ.get("OVS_RUNS") or project_root() / "runs")


def cache_root() -> Path:
    """Where text embeddings are cached: $OVS_CACHE, else ~/.cache/ovs-lite.

    For a user without a home folder a path below the null device, where nothing can be written: nothing is cached.
    """
    try:
        return Path(os.environ.get("OVS_CACHE") or "~/.cache/ovs-lite").expanduser()
    except RuntimeError:
        return Path(os.devnull) / "ovs-lite"


@contextmanager
def usable_home():
    """A temporary home folder, which Jupyter and NLTK need, for a user without one that can be written."""
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as folder:
        if not os.access(os.path.expanduser("~"), os.W_OK):
            os.environ["HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("HOME", None)
            os.environ.update({} if before is None else {"HOME": before})


def data_path(name: str | Path) -> Path:
    """A path as given where it is absolute or leads somewhere from the working folder, else below `data_root`.

    name: of a file, a folder, or a pattern such as "cc3m/*.tar".
    """
    path = Path(name)
    here = path.is_absolute() or path.exists() or path.parent != Path(".") and path.parent.exists()
    return path if here or any(Path(".").glob(str(path))) else data_root() / path
