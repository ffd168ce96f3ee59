"""Files: written so that a crash leaves the old one or the new one; their digests; the folders where things lie."""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path):
    """A temporary path next to `path`; renamed to `path` when the block succeeds, removed when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as stream:  # Windows syncs no file that is open for reading only
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically: indented by two spaces, keys in the order given, NaN as null."""
    write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON text; NaN and infinities become null, which JSON lacks."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, default=float)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, Real) and not isinstance(content, int) and not isfinite(content) else content


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    total = hashlib.sha256()
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
    """Where text embeddings are cached: $OVS_CACHE, else ~/.cache/ovs-lite."""
    return Path(os.environ.get("OVS_CACHE", "~/.cache/ovs-lite")).expanduser()


def data_path(name: str | Path) -> Path:
    """A path as given where it is absolute or leads somewhere from the working folder, else below `data_root`.

    name: of a file, a folder, or a pattern such as "cc3m/*.tar".
    """
    path = Path(name)
    here = path.is_absolute() or path.exists() or path.parent != Path(".") and path.parent.exists()
    return path if here or any(Path(".").glob(str(path))) else data_root() / path
