"""Train a recipe from a notebook: in this process, or one process per GPU, by the same call."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ovs_lite.checkpoints import latest_checkpoint
from ovs_lite.config import to_dict
from ovs_lite.files import write_json
from ovs_lite.methods import get_recipe
from ovs_lite.train.command import run_recipe
from ovs_lite.train.loop import OnStep

LAST_LINES = 80  # the launcher adds a report of its own below the error
RESOLVED = "launch.json"


def launch(
    name: str,
    config: Any,
    out: str | Path,
    on_step: OnStep | None = None,
    processes: int | None = None,
    fresh: bool = False,
) -> Any:
    """Train until it is done; returns what `recipe.load` makes of the weights that were written.

    name: of a recipe. config: its resolved configuration, which travels whole, as out/launch.json where there are
    several processes. on_step: only called with one process.
    processes: default one per GPU, one without a GPU. Counting GPUs does not touch them. Several run under `accelerate
    launch` (without a GPU under torch's own launcher, because accelerate then starts one in silence); their output is
    passed on line by line. Raises RuntimeError with its last lines when they fail; what they saved stays, and the same
    call resumes from there. fresh: start over.
    """
    recipe, out = get_recipe(name), Path(out)
    processes = processes or max(1, torch.cuda.device_count())
    if processes == 1:
        return recipe.load(run_recipe(recipe, config, out, fresh, on_step, progress=False), config)
    write_json(out / RESOLVED, to_dict(config))
    arguments = [name, "--config", str(out / RESOLVED), "--out", str(out)] + ["--fresh"] * fresh
    last: list[str] = []
    with subprocess.Popen(
        command(arguments, processes, torch.cuda.is_available()),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=_environment(),
    ) as running:  # fmt: skip
        for line in running.stdout:
            print(line, end="", flush=True)
            last = [*last, line][-LAST_LINES:]
    if running.returncode:
        raise RuntimeError(f"{processes} processes ended with {running.returncode}; their last lines:\n{''.join(last)}")
    if latest_checkpoint(out / "checkpoints").name != f"step-{config.loop.steps:08d}":
        raise RuntimeError(f"{out}: stopped by a signal before its last step; the same call resumes from there")
    return recipe.load(out / recipe.weights(config), config)


def command(arguments: list[str], processes: int, gpu: bool) -> list[str]:
    """The command line that trains with several processes; the same works in a terminal."""
    module = ["-m", "ovs_lite.train", *arguments]
    if gpu:
        several = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--dynamo_backend", "no"]
        return [sys.executable, "-m", "accelerate.commands.launch", *several, "--mixed_precision", "no", *module]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *module]


def _environment() -> dict[str, str]:
    """This process's, with the package importable also where the project is not installed."""
    here = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
