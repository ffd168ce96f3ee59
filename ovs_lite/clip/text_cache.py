"""Text embeddings on disk, one safetensors file per text tower and template set: a matrix, and the names of its rows.

The key is a fingerprint of the text tower's weights and of the templates' sentences, so neither a retrained model nor a
changed template meets old embeddings. What is damaged counts as absent: a cache may always be deleted.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import torch

from ovs_lite.data.templates import template_set
from ovs_lite.files import cache_root
from ovs_lite.tensors import DIGEST, read_tensors, write_tensors

ROWS, NAMES = "embeddings", "names"  # keys of the tensor, and of its rows' names (JSON) in the metadata
TOLERANCE = 1e-3  # of an embedding's length, which is 1
HELD = 4  # files whose entries stay in memory
_held: dict[Path, tuple[tuple[int, ...] | None, dict[str, torch.Tensor]]] = {}  # oldest first: version, entries


def path(fingerprint: str, templates: str) -> Path:
    """The file of a text tower (`Clip.fingerprint`) and a template set."""
    sentences = hashlib.sha256("\n".join(template_set(templates)).encode()).hexdigest()[:8]
    return cache_root() / "text" / f"{fingerprint}-{templates}-{sentences}.safetensors"


def read(file: Path, size: int) -> dict[str, torch.Tensor]:
    """The sound entries of a file whose digest is right: name -> (size,) float32, finite and of unit length.

    A file that has not changed since is not read again: twenty thousand entries take a tenth of a second.
    """
    version = _version(file, size)
    if version is None:
        return {}
    if file not in _held or _held[file][0] != version:
        _hold(file, version, _sound(_read(file), size))
    return dict(_held[file][1])


def write(file: Path, embeddings: dict[str, torch.Tensor], size: int) -> None:
    """Add name -> (size,), where it is sound, to a file. An unwritable folder or a full disk is no error: nothing is
    cached."""
    with contextlib.suppress(OSError):
        entries = read(file, size) | _sound(embeddings, size)
        if entries:
            _write(file, entries)
            _hold(file, _version(file, size), entries)


def _version(file: Path, size: int) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return size, found.st_ino, found.st_size, found.st_mtime_ns


def _hold(file: Path, version: tuple[int, ...] | None, entries: dict[str, torch.Tensor]) -> None:
    """Remember what a file says, of the last `HELD` files."""
    _held.pop(file, None)
    _held[file] = version, entries
    for oldest in list(_held)[:-HELD]:
        del _held[oldest]


def _write(file: Path, entries: dict[str, torch.Tensor]) -> None:
    names = sorted(entries)
    write_tensors(file, {ROWS: torch.stack([entries[name] for name in names])}, {NAMES: json.dumps(names)})


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        tensors, about = read_tensors(file)
        entries = dict(zip(json.loads(about[NAMES]), tensors[ROWS], strict=True))
    except (OSError, ValueError, KeyError, TypeError):  # the last two for a file of another layout
        return {}
    return entries if DIGEST in about else {}


def _sound(entries: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    return {name: value for name, value in entries.items() if _is_sound(value, size)}


def _is_sound(value: torch.Tensor, size: int) -> bool:
    of_form = value.dtype == torch.float32 and value.shape == (size,)
    return of_form and abs(float(value.norm()) - 1) < TOLERANCE  # false for NaN and infinities
