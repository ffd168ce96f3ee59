"""Notebooks that run at once: one that reads what the others found waits for them, and gives its place away meanwhile.

`ovs-lite reproduce` keeps in unfinished.json which notebooks of its run have not ended.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from ovs_lite.files import read_json, write_json

UNFINISHED = "unfinished.json"  # in the folder of a run
WAIT = "wait_for_others("  # in a cell that does
WAITING = "waiting"  # in a notebook's folder, while it waits
WAITED = "waited"  # afterwards: for how many seconds
PAUSE = 0.5  # seconds between two looks


def write_unfinished(run: Path, names: Collection[str]) -> None:
    """Say in a run's folder which notebooks have not ended; what this process said is worth nothing once it is gone."""
    write_json(run / UNFINISHED, {"process": os.getpid(), "notebooks": sorted(names)})


def wait_for_others(folder: Path) -> None:
    """Return when no other notebook of the run is unfinished: at once where no run is at work, as by hand.

    folder: the notebook's own, in that of the run.
    """
    if not _others(folder):
        return
    start = time.perf_counter()
    (folder / WAITING).touch()
    try:
        while _others(folder):
            time.sleep(PAUSE)
    finally:
        (folder / WAITED).write_text(f"{time.perf_counter() - start:.1f}", encoding="utf-8")
        (folder / WAITING).unlink(missing_ok=True)


def waits(folder: Path) -> bool:
    """Whether the notebook of that folder waits for the others."""
    return (folder / WAITING).exists()


def take_waited(folder: Path) -> float:
    """Seconds that the notebook of that folder waited; asked once more, or where it did not wait, 0."""
    path = folder / WAITED
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    finally:
        path.unlink(missing_ok=True)


def _others(folder: Path) -> list[str]:
    """Of its run, unfinished; two that wait do not wait for each other."""
    run = read_json(folder.parent / UNFINISHED)
    if not run or not psutil.pid_exists(run["process"]):
        return []
    names = [name for name in run["notebooks"] if name != folder.name]
    return [name for name in names if not waits(folder.parent / name)]
