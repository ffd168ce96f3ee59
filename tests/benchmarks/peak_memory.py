"""Memory of one call in a process of its own (Linux: VmHWM of /proc/self/status)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc returns freed blocks at once: the peak is what was in use


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def start_counting() -> int:
    """VmHWM counts from here, not from the making of the inputs. Returns VmRSS."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def growth(call: Callable[..., Any], *inputs: Any) -> int:
    """Bytes at the peak of one call beyond what was there before: the result included, the inputs not."""
    before = start_counting()
    call(*inputs)
    return resident("VmHWM") - before


def in_a_process(script: str, *arguments: object, give_back: bool = True) -> Any:
    """What a script with these arguments prints as JSON, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(GIVE_BACK if give_back else {})}
    command = [sys.executable, script, *map(str, arguments)]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
