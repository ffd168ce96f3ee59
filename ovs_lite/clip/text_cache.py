"""Text embeddings on disk, one safetensors file per text tower and template set.

The key is a fingerprint of the text tower's weights and of the templates' sentences, so neither a retrained model nor a
changed template meets old embeddings. A damaged file is treated as absent: a cache may always be deleted.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ovs_lite.data.prompts import template_set
from ovs_lite.files import cache_root
from ovs_lite.tensors import write_tensors


def _file(fingerprint: str, templates: str) -> Path:
    sentences = hashlib.sha256("\n".join(template_set(templates)).encode()).hexdigest()[:8]
    return cache_root() / "text" / f"{fingerprint}-{templates}-{sentences}.safetensors"


def read(fingerprint: str, templates: str, names: list[str]) -> dict[str, torch.Tensor]:
    """Those of `names` that are cached: name -> (D,) float32."""
    stored = _read_all(_file(fingerprint, templates))
    return {name: stored[name] for name in names if name in stored}


def write(fingerprint: str, templates: str, embeddings: dict[str, torch.Tensor]) -> None:
    """Add name -> (D,) to the cache. An unwritable folder or a full disk is no error: nothing is cached."""
    path = _file(fingerprint, templates)
    merged = _read_all(path) | {name: value.contiguous() for name, value in embeddings.items()}
    try:
        write_tensors(path, merged)
    except (OSError, SafetensorError):
        return


def _read_all(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return {}
