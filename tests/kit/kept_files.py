"""Whether a run goes on with what is there or makes it again: its files are looked at while it works."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

GLANCE = 0.005  # seconds between two looks


@dataclass
class KeptFiles:
    """Files that a killed run had finished. `remade`: those of which another file took the place while the block ran; a
    run that goes on leaves them, or removes them at its end."""

    files: tuple[Path, ...]
    remade: set[Path] = field(default_factory=set)

    def __str__(self):
        if not self.files:
            return "the same command began again"
        made = f", of which it made {len(self.remade)} again" if self.remade else ""
        return f"the same command went on with {', '.join(map(_name, self.files))}{made}"

    def __enter__(self):
        self._first = {path: _identity(path) for path in self.files}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(GLANCE):
            for path, first in self._first.items():
                with suppress(FileNotFoundError):
                    if _identity(path) != first:
                        self.remade.add(path)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _name(path: Path) -> str:
    """Of a manifest the folder's name, which says how far it is."""
    return path.parent.name if path.name == "manifest.json" else path.stem
