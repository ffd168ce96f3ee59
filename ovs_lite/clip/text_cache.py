"""Text embeddings on disk, one safetensors file per text tower and template set.

The key is a fingerprint of the text tower's weights and of the templates' sentences, so neither a retrained model nor a
changed template meets old embeddings. A damaged file is treated as absent: a cache may always be deleted.
"""

import contextlib
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ovs_lite.data.prompts import template_set
from ovs_lite.files import cache_root
from ovs_lite.tensors import write_tensors


def path(fingerprint: str, templates: str) -> Path:
    """The file of a text tower (`Clip.fingerprint`) and a template set."""
    sentences = hashlib.sha256("\n".join(template_set(templates)).encode()).hexdigest()[:8]
    return cache_root() / "text" / f"{fingerprint}-{templates}-{sentences}.safetensors"


def read(file: Path) -> dict[str, torch.Tensor]:
    """Everything in a file: name -> (D,) float32."""
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return {}


def write(file: Path, embeddings: dict[str, torch.Tensor]) -> None:
    """Add name -> (D,) to a file. An unwritable folder or a full disk is no error: nothing is cached."""
    with contextlib.suppress(OSError, SafetensorError):
        write_tensors(file, read(file) | embeddings)
