"""Processes without the seconds that importing torch takes: copies of a server that has imported it.

`run("kit.tasks.main", folder)` is what `subprocess.run` is for a fresh interpreter; `Process` is its Popen. For what
only a fresh interpreter shows (the command line, another hash seed, what an import does) use subprocess.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MODULES = (
    "torch", "torchvision", "torch.distributed", "open_clip", "datasets", "networkx", "scipy.stats", "pytest",
    "ovs_lite.cli", "ovs_lite.evaluation.grid", "ovs_lite.methods.pseudo_masks", "ovs_lite.train",
)  # fmt: skip


def environment() -> dict[str, str]:
    """This process's, with the package and the kit importable, and one thread."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


class Server:
    """Starts `kit.warm_server`; out of reach of a Ctrl-C in the terminal, it ends with this process."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kit.warm_server", *MODULES], env=environment(), cwd=TESTS, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.process.communicate)

    def ask(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the warm server ended with {self.process.wait()}")
        return json.loads(answer)


@cache
def server(number: int) -> Server:
    """One per number, started when it is first asked for: their copies differ in the seed of Python's hashes."""
    return Server()


class Process:
    """A process that calls `function` (dotted, of the kit) with `words`, by copying a server; the tests' part of Popen.

    Leaving the context kills it where it still runs. more: added to this process's environment.
    """

    def __init__(self, function: str, *words: object, more: dict[str, str] | None = None, number: int = 0):
        self.args, self.server, self.returncode = [function, *map(str, words)], server(number), None
        self.home = tempfile.TemporaryDirectory()
        self.files = [Path(self.home.name) / name for name in ("stdout", "stderr")]
        self.pid = self.server.ask(
            function=function, words=self.args[1:], environment=environment() | (more or {}), folder=os.getcwd(),
            files=list(map(str, self.files)),
        )  # fmt: skip

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float = 900) -> int:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def said(self) -> tuple[str, str]:
        """Its output so far, and its errors."""
        return tuple(path.read_text() if path.exists() else "" for path in self.files)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.send_signal(signal.SIGKILL)
        self.wait()
        self.home.cleanup()


def run(function: str, *words: object, timeout: float = 900) -> subprocess.CompletedProcess:
    """A process from its start to its end."""
    with Process(function, *words) as process:
        return subprocess.CompletedProcess(process.args, process.wait(timeout), *process.said())
