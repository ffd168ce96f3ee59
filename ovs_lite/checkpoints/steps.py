"""Checkpoints: safetensors next to a manifest with its digest. Atomic, no pickle, damage is refused by name.

folder/step-N/state.safetensors holds the tensors and, as its metadata, the notes (JSON); folder/step-N/manifest.json
holds the step and the SHA-256 of that file and is written last, so a folder with a manifest is complete.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ovs_lite.files import file_digest, one_line, write_json
from ovs_lite.tensors import write_tensors

KEEP = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"
REMEDY = "delete this folder to resume from the checkpoint before it"


class Checkpoint(NamedTuple):
    """What a checkpoint holds. step: how many steps are done. notes: plain JSON values about the run."""

    tensors: dict[str, torch.Tensor]
    step: int
    notes: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, torch.Tensor], notes: dict[str, Any] | None = None
) -> Path:
    """Write folder/step-N with tensors and notes; keeps the newest two and removes what a killed save left behind.

    Tensors may share memory; each is stored whole. Returns the checkpoint's folder. Raises OSError when it cannot be
    written (a full disk); the checkpoints before it are then untouched.
    """
    target = folder / f"step-{step:08d}"
    _remove(target)
    try:
        write_tensors(
            target / STATE,
            {name: value.detach().cpu().clone() for name, value in tensors.items()},
            {"notes": json.dumps(notes or {})},
        )
        _sync(target)
        write_json(target / MANIFEST, {"step": step, "sha256": file_digest(target / STATE)})
        _sync(target)
    except (OSError, SafetensorError) as error:
        _remove(target)
        raise OSError(f"{target}: not written ({one_line(error)}); a resume begins at the one before") from error
    _sync(folder)
    kept = _complete(folder)[-KEEP:]
    for other in folder.glob("step-*"):
        if other not in kept:
            _remove(other)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return max(_complete(folder), default=None)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run, so that it starts over."""
    for path in folder.glob("step-*"):
        _remove(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises ValueError naming the damaged or missing file and the remedy."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        step, expected = int(manifest["step"]), manifest["sha256"]
        if path.name != f"step-{step:08d}":
            raise ValueError(f"it is of step {step}")
        file = path / STATE
        if file_digest(file) != expected:
            raise ValueError("its SHA-256 is not the manifest's")
        with safe_open(file, "pt") as stored:
            notes = json.loads((stored.metadata() or {}).get("notes", "{}"))
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # as in `read_tensors`
            return Checkpoint(tensors, step, notes)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{file}: damaged checkpoint ({type(error).__name__}: {error}); {REMEDY}") from error


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"step-*/{MANIFEST}"))


def _remove(path: Path) -> None:
    """Remove a checkpoint, its manifest first: a kill halfway leaves nothing that looks complete."""
    if path.is_dir():
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


def _sync(folder: Path) -> None:
    """Make renames inside the folder survive a power cut, where the system can (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
