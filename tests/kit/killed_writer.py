"""A process that is killed while it writes a split: run by tests/data/test_record.py through `kit.warm`."""

import os
import signal

import datasets

from kit.records import three_segments
from ovs_lite.data.record import write_split


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write(path: str, when: str) -> None:
    """Killed after the "rows" are drawn, or after the "save" of the new folder."""

    def source():
        yield from map(three_segments, range(40))
        if when == "rows":
            die()

    save = datasets.Dataset.save_to_disk
    datasets.Dataset.save_to_disk = lambda self, path, **options: (save(self, path, **options), die())
    write_split(source(), path, overwrite=True, progress=False)
