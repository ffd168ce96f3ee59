"""Text embeddings on disk, one safetensors file per text tower and template set.

The key is a fingerprint of the text tower's weights and of the templates' sentences, so neither a retrained model nor a
changed template meets old embeddings. What is damaged counts as absent: a cache may always be deleted.
"""

import contextlib
import functools
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError

from ovs_lite.data.prompts import template_set
from ovs_lite.files import cache_root
from ovs_lite.tensors import DIGEST, read_tensors, write_tensors

TOLERANCE = 1e-3  # of an embedding's length, which is 1


def path(fingerprint: str, templates: str) -> Path:
    """The file of a text tower (`Clip.fingerprint`) and a template set."""
    sentences = hashlib.sha256("\n".join(template_set(templates)).encode()).hexdigest()[:8]
    return cache_root() / "text" / f"{fingerprint}-{templates}-{sentences}.safetensors"


def read(file: Path, size: int) -> dict[str, torch.Tensor]:
    """The sound entries of a file whose digest is right: name -> (size,) float32, finite and of unit length.

    A file that has not changed since is not read again: thousands of entries take a tenth of a second.
    """
    try:
        found = file.stat()
    except OSError:
        return {}
    return dict(_read(file, size, (found.st_ino, found.st_size, found.st_mtime_ns)))


@functools.lru_cache(maxsize=4)
def _read(file: Path, size: int, version: tuple[int, ...]) -> dict[str, torch.Tensor]:
    try:
        tensors, about = read_tensors(file)
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in tensors.items() if DIGEST in about and _is_sound(value, size)}


def write(file: Path, embeddings: dict[str, torch.Tensor], size: int) -> None:
    """Add name -> (size,) to a file. An unwritable folder or a full disk is no error: nothing is cached."""
    with contextlib.suppress(OSError, SafetensorError):
        write_tensors(file, read(file, size) | embeddings)


def _is_sound(value: torch.Tensor, size: int) -> bool:
    of_form = value.dtype == torch.float32 and value.shape == (size,)
    return of_form and abs(float(value.norm()) - 1) < TOLERANCE  # false for NaN and infinities
