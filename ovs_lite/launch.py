"""Start a training from a notebook: in this process, or one process per GPU, by the same call.

    launch(["proposals", "openseg", "--out", run.out / "openseg"], on_step=curve)

The words are those of `python -m ovs_lite.train`. What is trained comes back through the files that it leaves.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ovs_lite.train import main as train_here

OnStep = Callable[[int, dict[str, float]], None]
LAST_LINES = 80  # the launcher adds a report of its own below the error


def launch(words: Sequence[str | Path], on_step: OnStep | None = None, processes: int | None = None) -> None:
    """Train until it is done. processes: default one per GPU, one without a GPU; on_step: only called with one.

    Several processes run under `accelerate launch` (without a GPU under torch's own launcher, because accelerate then
    starts one in silence); their output is passed on line by line. Raises RuntimeError with its last lines when they
    fail; what they saved stays, and the same call goes on from there. Counting GPUs does not touch them.
    """
    given = [str(word) for word in words]
    processes = processes or max(1, torch.cuda.device_count())
    if processes == 1:
        train_here(given, on_step)
        return
    last: list[str] = []
    with subprocess.Popen(
        command(given, processes, torch.cuda.is_available()),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=_environment(),
    ) as running:  # fmt: skip
        for line in running.stdout:
            print(line, end="", flush=True)
            last = [*last, line][-LAST_LINES:]
    if running.returncode:
        raise RuntimeError(f"{processes} processes ended with {running.returncode}; their last lines:\n{''.join(last)}")


def command(words: Sequence[str], processes: int, gpu: bool) -> list[str]:
    """The command line that trains with several processes; the same works in a terminal."""
    module = ["-m", "ovs_lite.train", *words]
    if gpu:
        several = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--dynamo_backend", "no"]
        return [sys.executable, "-m", "accelerate.commands.launch", *several, "--mixed_precision", "no", *module]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *module]


def _environment() -> dict[str, str]:
    """This process's, with the package importable also where the project is not installed."""
    here = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
