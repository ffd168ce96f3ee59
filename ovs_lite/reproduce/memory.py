"""How much memory a notebook takes: the largest sum of resident sizes of its kernel and all below it, sampled."""

import threading
from contextlib import suppress

import psutil

MEGABYTE = 1 << 20


class PeakMemory:
    """Watches a process and those that it starts, theirs too, while the block runs: a kernel and its workers.

    process: id of that process, set once it has started; None: nothing to watch yet.
    megabytes: the peak so far. Pages that processes share count once in each of them, so it is an upper bound of what
    they hold together; what lives shorter than `interval` seconds may be missed.
    """

    def __init__(self, interval: float = 0.5):
        self.interval, self.megabytes = interval, 0
        self.process: int | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self.interval):
            if self.process is not None:
                self.megabytes = max(self.megabytes, _resident(self.process) // MEGABYTE)


def machine_memory() -> int:
    """Megabytes of this machine."""
    return psutil.virtual_memory().total // MEGABYTE


def _resident(process: int) -> int:
    total = 0
    with suppress(psutil.Error):
        top = psutil.Process(process)
        for member in (top, *top.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile, or is another user's
                total += member.memory_info().rss
    return total
