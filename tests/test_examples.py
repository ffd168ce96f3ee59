"""The examples of docs/scale.md: every flag exists, and the body of the SLURM script trains, stops and resumes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from kit.processes import environment
from kit.records import shape_pairs
from ovs_lite.checkpoints import latest_checkpoint, load_checkpoint
from ovs_lite.data.record import write_split
from ovs_lite.methods import get_recipe
from ovs_lite.train.command import build_parser

EXAMPLES = Path(__file__).parents[1] / "examples"
SBATCH = EXAMPLES / "slurm_tcl.sbatch"
# Of `sbatch --help` (SLURM 23.11), those that a training needs.
DIRECTIVES = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue", "open-mode",
    "output",
}  # fmt: skip
SRUN = """#!/bin/bash
# Starts $SLURM_NTASKS processes on this machine.
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!); done
echo "${pids[@]}" > "$ASKED.tasks"
code=0
for pid in "${pids[@]}"; do
    while kill -0 $pid 2> /dev/null; do wait $pid; got=$?; done
    [ ${got:-0} -eq 0 ] || code=$got
done
exit $code
"""
SCANCEL = """#!/bin/bash
kill -TERM $(cat "$ASKED.tasks")
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo 127.0.0.1; echo nobody; else echo "$@" >> "$ASKED"; fi
"""


def joined(text):
    return text.replace("\\\n", " ")


def trained(text):
    """The arguments after `-m ovs_lite.train` (or its "$@"), without the shell's own last ones."""
    line = next(line for line in joined(text).splitlines() if " tcl --profile" in line and not line.startswith("#"))
    words = shlex.split(line.split(" tcl --profile", 1)[1].removesuffix("&"))
    return ["--profile", *(word for word in words if word != "$@")]


def sky():
    return yaml.safe_load((EXAMPLES / "sky_tcl.yaml").read_text())


@pytest.mark.parametrize("text", [SBATCH.read_text(), sky()["run"]], ids=["slurm", "sky"])
def test_every_flag_of_the_training_exists_and_is_in_its_help(text):
    parser, words = build_parser(get_recipe("tcl")), trained(text)
    flags = [word for word in words if word.startswith("--")]
    assert len(flags) >= 4 and all(f"{flag} " in parser.format_help() for flag in flags)
    args = parser.parse_args(words)
    assert args.profile == "paper" and args.data is None and args.precision == "bf16"


def test_the_commands_of_the_document_parse():
    text = (EXAMPLES.parent / "docs" / "scale.md").read_text()
    found = [line.split("-m ovs_lite.train ")[1].split() for line in text.splitlines()
             if line.startswith("    ") and "-m ovs_lite.train " in line]  # fmt: skip
    assert len(found) == 2
    for name, *words in found:
        build_parser(get_recipe(name)).parse_args(words)
    assert "--sync" in build_parser(get_recipe("openseg")).format_help()
    shown = build_parser(get_recipe("tcl")).format_help()
    assert all(flag in shown for flag in re.findall(r"`(--(?!requeue|backbone|sync)[a-z-]+)", text))


def test_the_directives_of_the_slurm_script_are_sbatchs():
    found = re.findall(r"(?m)^#SBATCH --([\w-]+)(?:=(\S+))?$", SBATCH.read_text())
    assert {name for name, _ in found} == DIRECTIVES and len(found) == SBATCH.read_text().count("#SBATCH")
    assert dict(found)["signal"] == "B:TERM@300" and dict(found)["ntasks-per-node"] == dict(found)["gpus-per-node"]


def test_torchs_launcher_knows_the_flags_of_the_sky_file():
    task = sky()
    assert {"num_nodes", "resources", "setup", "run", "file_mounts"} <= task.keys()
    line = next(line for line in joined(task["run"]).splitlines() if line.startswith("torchrun"))
    names = {"NUM_NODES": "2", "NUM_GPUS_PER_NODE": "8", "NODE_RANK": "1", "NODE_IPS": "10.0.0.1\n10.0.0.2"}
    shell = "".join(f"export SKYPILOT_{name}={shlex.quote(value)}\n" for name, value in names.items())
    words = subprocess.run(
        ["bash", "-c", f'{shell}torchrun() {{ printf "%s\\n" "$@"; }}\n{line}'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    args = get_args_parser().parse_args(words)
    assert (args.nnodes, args.nproc_per_node, args.node_rank, args.master_addr) == ("2", "8", 1, "10.0.0.1")
    assert args.module and args.training_script == "ovs_lite.train" and args.training_script_args[0] == "tcl"


def slurm(tmp_path, *words):
    """The script's body on two processes of this machine, with stand-ins for srun and scontrol."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    python = programs / "python"
    if not python.exists():
        python.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
    slurms = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "7", "MASTER_PORT": "29511"}
    paths = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")}
    command = ["bash", str(SBATCH), *map(str, words)]
    return subprocess.Popen(
        command, env=environment() | slurms | paths, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


@pytest.mark.slow
def test_the_slurm_script_trains_is_stopped_in_time_and_resumes(tmp_path):
    write_split(shape_pairs(7), tmp_path / "pairs", progress=False)
    tiny = ["--profile", "smoke", "--data", tmp_path / "pairs", "--batch", 4, "--precision", "no", "--workers", 0,
            "--warmup", 1, "--checkpoint-every", 1, "--threads", 1]  # fmt: skip
    checkpoints, asked = tmp_path / "runs" / "tcl" / "checkpoints", tmp_path / "asked"
    job = slurm(tmp_path, *tiny, "--steps", 5000)
    while latest_checkpoint(checkpoints) is None and job.poll() is None:
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate()
    assert job.returncode == 0 and errors.count("stopped by a signal after") == 2, errors
    assert asked.read_text() == "requeue 7\n"
    done = load_checkpoint(latest_checkpoint(checkpoints)).step
    assert 0 < done < 5000 and not (tmp_path / "runs" / "tcl" / "tcl.safetensors").exists()
    job = slurm(tmp_path, *tiny, "--steps", done + 1)
    _, errors = job.communicate()
    assert job.returncode == 0, errors
    assert asked.read_text() == "requeue 7\n", "a job that is done is not put back into the queue"
    assert (tmp_path / "runs" / "tcl" / "tcl.safetensors").exists()
    last = json.loads((tmp_path / "runs" / "tcl" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == done + 1 and last["samples"] == 4 * (done + 1) and last["devices"].startswith("2 x CPU")
