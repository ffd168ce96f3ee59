"""Is an executed notebook still true? Compare what it was made from with what it would be made from now.

A fingerprint holds one digest per thing that can change a number: the notebook's code cells (prose may be polished
freely), every package file, the parameters, the manifests of the prepared data, the real data, and library versions.
"""

import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ovs_lite.config import flatten

PACKAGE = Path(__file__).parents[1]
# These run or print notebooks; no notebook imports them (tests/kit/notebook_rules.py), so they cannot change a result.
RUNNERS = ("reproduce/", "commands/", "__main__.py", "cli.py")
SUFFIXES = {".py", ".json", ".gz", ".webp", ".safetensors", ".yaml"}  # .gz: the tagger; .webp: the sprites
LIBRARIES = ("numpy", "open_clip_torch", "scikit-image", "torch", "torchvision")

Fingerprint = dict[str, dict[str, str]]


def fingerprint(notebook: Path, parameters: dict[str, Any], data_folder: Path) -> Fingerprint:
    """What `notebook` depends on: {kind: {name: digest}}. data_folder: the profile's folder of prepared sets."""
    return {
        "code": _code_cells(notebook),
        "package": _package_files(PACKAGE),
        "parameters": {key: str(value) for key, value in flatten(parameters)},
        "data": _manifests(data_folder),
        "real data": _real_data(),
        "library": {name: library_version(name) for name in LIBRARIES},
    }


def changes(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Which things differ, in words, e.g. ["package changed: losses/tcl.py"]; [] when nothing does."""
    found = []
    for kind in {**new, **old}:
        before, after = old.get(kind, {}), new.get(kind, {})
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(f"{kind} changed: {', '.join(names[:3])}{more}")
    return found


def library_version(library: str) -> str:
    """Version of an installed library, or "absent"."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def _code_cells(notebook: Path) -> dict[str, str]:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook}: not a readable notebook ({type(error).__name__}: {error})") from error
    return {f"code cell {number}": _digest(source.encode()) for number, source in enumerate(sources, 1)}


def _package_files(package: Path) -> dict[str, str]:
    paths = (path for path in sorted(package.rglob("*")) if path.suffix in SUFFIXES and path.is_file())
    named = ((path.relative_to(package).as_posix(), path) for path in paths)
    return {name: _digest(path.read_bytes()) for name, path in named if not name.startswith(RUNNERS)}


def _manifests(folder: Path) -> dict[str, str]:
    paths = sorted(folder.rglob("manifest.json"))
    return {path.parent.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in paths}


def _real_data() -> dict[str, str]:
    """$OVS_REAL_DATA by its file names and sizes: reading gigabytes at every call would cost too much."""
    root = os.environ.get("OVS_REAL_DATA")
    if not root:
        return {}
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    listing = "\n".join(f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in files)
    return {"OVS_REAL_DATA": _digest(listing.encode())}
