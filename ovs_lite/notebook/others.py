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
WAITING = "waiting"  # in a notebook's folder, while it waits
PAUSE = 0.5  # seconds between two looks


def write_unfinished(run: Path, names: Collection[str]) -> None:
    """Say in a run's folder which notebooks have not ended; what this process said is worth nothing once it is gone."""
    write_json(run / UNFINISHED, {"process": os.getpid(), "notebooks": sorted(names)})


def wait_for_others(folder: Path) -> None:
    """Return when no other notebook of the run is unfinished: at once where no run is at work, as by hand.

    folder: the notebook's own, in that of the run.
    """
    if _others(folder):
        (folder / WAITING).touch()
    try:
        while _others(folder):
            time.sleep(PAUSE)
    finally:
        (folder / WAITING).unlink(missing_ok=True)


def waits(folder: Path) -> bool:
    """Whether the notebook of that folder waits for the others."""
    return (folder / WAITING).exists()


def _others(folder: Path) -> list[str]:
    """Of its run, unfinished; two that wait do not wait for each other."""
    run = read_json(folder.parent / UNFINISHED)
    if not run or not psutil.pid_exists(run["process"]):
        return []
    names = [name for name in run["notebooks"] if name != folder.name]
    return [name for name in names if not waits(folder.parent / name)]
