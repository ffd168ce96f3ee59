"""Two processes: `launch("kit.tcl.two_processes", folder)` calls that function in each, inside a process group.

The function gets the folder and saves what it found as rank-0.pt and rank-1.pt with `save`.
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from ovs_lite import distributed

TESTS = Path(__file__).resolve().parents[1]


def environment():
    """This process's, with the package and the kit importable, and one thread."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def launch(function: str, *words: object) -> subprocess.CompletedProcess:
    """Run `function` (dotted, of the kit) in two processes with `words` as arguments."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [function, *map(str, words)]
    return subprocess.run([*command, __file__, *words], env=environment(), capture_output=True, text=True)


def save(found: object, folder: str | Path) -> None:
    """Leave what this process found."""
    torch.save(found, Path(folder) / f"rank-{distributed.rank()}.pt")


def load(folder: Path) -> list:
    """What the two processes left."""
    return [torch.load(folder / f"rank-{number}.pt", weights_only=True) for number in (0, 1)]


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
