"""Where a run was made: the commit of the package, the machine, the libraries, the command that does it again."""

import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch

from ovs_lite.config import Profile, to_dict
from ovs_lite.reproduce.fingerprint import LIBRARIES, PACKAGE, library_version
from ovs_lite.reproduce.memory import machine_memory

UNKNOWN = "unknown"
CPU_INFO = Path("/proc/cpuinfo")


def run_facts(profile: Profile, config: str | Path | None = None, jobs: int = 1) -> dict[str, Any]:
    """What run.json says: the command for the whole run, commit, resolved profile, machine, versions.

    jobs: notebooks that share the machine.
    """
    command = ["ovs-lite", "reproduce", "--profile", profile.name, "--seed", str(profile.seed)]
    command += [] if config is None else ["--config", str(config)]
    return {
        "command": shlex.join(command),
        "commit": commit(),
        "config": "" if config is None else Path(config).name,
        "profile": to_dict(profile),
        "machine": {
            "system": platform.platform(), "processor": processor(), "cpu cores": cores(),
            "memory MB": machine_memory(), "gpus": torch.cuda.device_count(), "python": platform.python_version(),
            "notebooks at once": jobs,
        },
        "library": {name: library_version(name) for name in LIBRARIES},
    }  # fmt: skip


def commit(package: Path = PACKAGE) -> str:
    """Git hash of the checkout that holds the package, "... with changes" where files differ from it, else "unknown".

    A package that is installed below somebody else's checkout is not of that checkout.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    head = _git(package, "rev-parse", "HEAD")
    if not top or not head or Path(top).resolve() != package.resolve().parent:
        return UNKNOWN
    return head + " with changes" * bool(_git(package, "status", "--porcelain", "--untracked-files=no"))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The CPU's name as Linux reports it, else the architecture's."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; "" without git, outside of a checkout, or where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
