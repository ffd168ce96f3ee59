"""Two processes: `launch("kit.tcl_training.two_processes", folder)` calls that function in each, in a process group.

The function gets the folder and saves what it found as rank-0.pt and rank-1.pt with `save`. `as_process` only pretends.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from ovs_lite import distributed
from ovs_lite.locks import LOCK

TESTS = Path(__file__).resolve().parents[1]


def environment():
    """This process's, with the package and the kit importable, and one thread."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def launch(function: str, *words: object) -> subprocess.CompletedProcess:
    """Run `function` (dotted, of the kit) in two processes with `words` as arguments."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [function, *map(str, words)]
    return subprocess.run([*command, __file__, *words], env=environment(), capture_output=True, text=True, timeout=900)


@contextmanager
def working_process(folder: Path, name: str = LOCK):
    """Another process that works alone in a folder; gives its Popen."""
    code = "import sys\nfrom ovs_lite.locks import exclusive\nwith exclusive(*sys.argv[1:]): print(flush=True); input()"
    command = [sys.executable, "-c", code, str(folder), name]
    with subprocess.Popen(command, env=environment(), stdin=-1, stdout=-1, text=True) as other:
        other.stdout.readline()
        try:
            yield other
        finally:
            other.communicate("\n")


def save(found: object, folder: str | Path) -> None:
    """Leave what this process found."""
    torch.save(found, Path(folder) / f"rank-{distributed.rank()}.pt")


def load(folder: Path) -> list:
    """What the two processes left."""
    return [torch.load(folder / f"rank-{number}.pt", weights_only=True) for number in (0, 1)]


def as_process(monkeypatch, rank: int, count: int) -> None:
    """`distributed` believes that this is process `rank` of `count`; no calls between them."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: count)


def main(function: str, *words: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    module, name = function.rsplit(".", 1)
    getattr(import_module(module), name)(*words)
    distributed.destroy_process_group()
    assert not dist.is_initialized()
    distributed.destroy_process_group()  # without a group: nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
