"""Two processes: `launch("kit.tcl_training.two_processes", folder)` calls that function in each, in a process group.

The function gets the folder and saves what it found as rank-0.pt and rank-1.pt with `save`. `as_process` only pretends.
"""

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist

from kit import warm
from kit.warm import environment
from ovs_lite import distributed
from ovs_lite.locks import LOCK


def launch(function: str, *words: object, limit: float = 900) -> subprocess.CompletedProcess:
    """Run `function` (dotted, of the kit) in two processes with `words` as arguments.

    They are warm (`kit.warm`), of a server each, and find what torch's launcher gives: their numbers, and a store that
    this process serves.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    servers = [warm.server(number) for number in (0, 1)]  # both begin to import
    with ExitStack() as stack:
        found = [_launched(number, store.port) for number in range(len(servers))]
        pair = [
            stack.enter_context(warm.Process("kit.processes.main", function, *words, more=more, number=number))
            for number, more in enumerate(found)
        ]
        code = _together(pair, limit)
        output = map("".join, zip(*(process.said() for process in pair), strict=True))
        return subprocess.CompletedProcess([function, *words], code, *output)


def launch_by_torch(function: str, *words: object) -> subprocess.CompletedProcess:
    """The same by torch's launcher, in fresh interpreters."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [function, *map(str, words)]
    return subprocess.run([*command, __file__, *words], env=environment(), capture_output=True, text=True, timeout=900)


def _launched(number: int, port: int) -> dict[str, str]:
    """What torch's launcher adds to the environment of process `number` of two."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    store = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return group | store | {"RANK": str(number), "LOCAL_RANK": str(number)}


def _together(processes: list[warm.Process], limit: float) -> int:
    """0 when all have ended well, else the code of the first that has not: nobody waits for the others."""
    until = time.monotonic() + limit
    while None in (codes := [process.poll() for process in processes]) and not any(codes):
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(processes[0].args, limit)
        time.sleep(0.005)
    return next((code for code in codes if code), 0)


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
