"""One run at a time in a folder: a file in it that is locked while the run works, and says who works there."""

import os
import socket
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
_held: dict[Path, BinaryIO] = {}  # the locks of this process


def _forget_locks() -> None:
    """A forked process (a loader's worker) does not hold what its parent holds: else it would outlive that."""
    while _held:
        _held.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def exclusive(folder: str | Path, name: str = LOCK):
    """Work alone in a folder, which is made where it is missing: a file `name` in it is locked while the block runs.

    The system gives the lock back when the process dies, so what a killed run left there is taken over; a block inside
    another one of the same process is let in. Raises BlockingIOError that says who works there, OSError where the
    folder cannot be written.
    """
    folder = Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / name
    if path in _held:
        yield
        return
    stream = _locked(path, folder)
    _held[path] = stream
    try:
        _sign(stream, path)
        yield
    finally:
        if _held.pop(path, None):
            with suppress(OSError):  # Windows removes no open file; there it stays, unlocked
                path.unlink()
            stream.close()
            with suppress(OSError):  # something was written
                if made:
                    folder.rmdir()


def _locked(path: Path, folder: Path) -> BinaryIO:
    """The lock's file, open and locked."""
    while True:
        stream = open(path, "a+b", buffering=0)
        try:
            _lock(stream)
        except (BlockingIOError, PermissionError):
            stream.seek(0)
            who = stream.read().decode(errors="replace") or "another process"
            stream.close()
            message = f"{folder}: {who} works there; wait until it ends, or choose another folder"
            raise BlockingIOError(message) from None
        except OSError as error:
            warnings.warn(f"{folder}: no locks there ({error.strerror}), so two runs are not noticed", stacklevel=5)
        if path.exists() and os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
            return stream
        stream.close()  # its owner ended, and removed it, between the two calls


def _sign(stream: BinaryIO, path: Path) -> None:
    """Write who works here. Raises OSError naming the file: the first thing that a full disk does not take."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}, since {since},".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _lock(stream: BinaryIO) -> None:
    """Raises BlockingIOError or PermissionError where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows locks bytes, which nobody else can read then: one far behind the text
        import msvcrt

        stream.seek(1 << 20)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
