"""Checkpoints: safetensors beside a manifest with a digest. Atomic, no pickle, damage is refused by name."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ovs_lite.checksums import file_digest
from ovs_lite.files import write_json, write_tensors

KEEP = 2
REMEDY = "delete this folder to go on from the checkpoint before it"


def save_checkpoint(folder: Path, step: int, tensors: dict[str, torch.Tensor]) -> Path:
    """Write folder/step-N with its tensors; the manifest comes last, so a folder with a manifest is complete.

    Keeps the newest two. Returns the checkpoint's folder.
    """
    target = folder / f"step-{step:08d}"
    write_tensors(target / "state.safetensors", tensors)
    write_json(target / "manifest.json", {"step": step, "sha256": file_digest(target / "state.safetensors")})
    for old in _complete(folder)[:-KEEP]:
        shutil.rmtree(old)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = _complete(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Tensors and step of a checkpoint folder. Raises ValueError naming the damaged or missing file and the remedy."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        step, expected = int(manifest["step"]), manifest["sha256"]
        if file_digest(path / "state.safetensors") != expected:
            raise ValueError("its SHA-256 is not the manifest's")
        return load_file(path / "state.safetensors"), step
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged checkpoint ({error}); {REMEDY}") from error


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("step-*") if (path / "manifest.json").exists())
