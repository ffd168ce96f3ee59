"""What a finished notebook left: stage.json, written last, with the digest of every file and one of itself.

So a file that was truncated, flipped or lost is known by name, before anything believes it, and made again.
"""

import hashlib
from pathlib import Path
from typing import Any

from ovs_lite.files import file_digest, read_json, to_json, write_json
from ovs_lite.locks import LOCK

STAGE, EXECUTED, PAGE = "stage.json", "executed.ipynb", "executed.html"
CHECKPOINTS = "checkpoints"  # they only serve to resume, have digests of their own, and may be deleted


def write_stage(folder: Path, facts: dict[str, Any]) -> None:
    """Write folder/stage.json: `facts` of the run and the digests of the files below `folder`, but for checkpoints."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    kept = [name for name in names if CHECKPOINTS not in name.parts and name.name not in (STAGE, LOCK)]
    content = {**facts, "products": {name.as_posix(): file_digest(folder / name) for name in kept}}
    write_json(folder / STAGE, {**content, "sha256": _digest(content)})


def read_stage(folder: Path) -> dict[str, Any]:
    """What `write_stage` wrote; {} where there is none, or where it is not what was written."""
    content = read_json(folder / STAGE)
    digest = content.pop("sha256", None)
    return content if digest == _digest(content) else {}


def damaged(folder: Path, stage: dict[str, Any]) -> list[str]:
    """Names of the files below `folder` that are not as the run of `stage` left them."""
    return [name for name, digest in stage.get("products", {}).items() if not _fits(folder / name, digest)]


def _fits(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError:
        return False


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(content).encode("utf-8", "surrogatepass")).hexdigest()
