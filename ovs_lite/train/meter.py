"""What a training run takes: devices, hours, samples, their speed, the share of waiting for data, peak memory.

A sample is one image, with its caption where the recipe trains on pairs.
"""

import sys
import time
from typing import Any

import psutil
import torch

from ovs_lite.distributed import largest, world_size
from ovs_lite.methods import Task

MOST_WAITING = 0.2  # share of the time; above it `CURE` is printed
FEWEST_STEPS = 20  # before that the first batches, which nothing could prepare, decide the share
SHORTEST_WAIT = 10.0  # seconds; less is not worth a cure, such as captions that a short run reads for the first time
GIGABYTE = 1e9


class Meter:
    """Counts from its making on, and on top of what a checkpoint brings of the steps before.

    device: of this process. spent: see `spent`, of the steps before. All times are wall-clock seconds. Every step ends
    with its gradient's norm on the CPU, so that a GPU is idle while the next batch is waited for; of accumulated
    batches the wait overlaps with the backward pass before, so that their share is an upper bound.
    """

    def __init__(self, device: torch.device, spent: dict[str, float] | None = None):
        self.device, self.before = device, {"seconds": 0.0, "waited": 0.0, "samples": 0} | (spent or {})
        self.waited, self.samples, self.batches, self.begun = 0.0, 0, 0, time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def batch(self, task: Task, index: int) -> Any:
        """The task's batch of that index; its samples, of all processes, and the time until it is there count."""
        asked = time.perf_counter()
        batch = task.batch(index)
        self.waited += time.perf_counter() - asked
        self.samples += task.count(batch)
        self.batches += 1
        return batch

    def speed(self) -> float:
        """Samples per second since the start, of all processes."""
        return self.samples / (time.perf_counter() - self.begun)

    def spent(self) -> dict[str, float]:
        """What a checkpoint keeps: seconds, seconds of waiting for data, samples; with those of the steps before."""
        now = {"seconds": time.perf_counter() - self.begun, "waited": self.waited, "samples": self.samples}
        return {name: self.before[name] + value for name, value in now.items()}

    def row(self) -> dict[str, Any]:
        """The log's last row; a call that all processes make together. The wait and the peak are the worst process's.

        hours: of all steps that made these weights; those that were lost with a killed process are not in it.
        peak_memory_gb: 1e9 bytes; of tensors on a GPU; else resident, since the process began, without its workers.
        """
        spent = self.spent()
        waited = largest(round(spent["waited"] * 1000), self.device) / 1000
        peak = largest(peak_bytes(self.device), self.device)
        return {
            "devices": f"{world_size()} x {device_name(self.device)}",
            "hours": round(spent["seconds"] / 3600, 5),
            "samples": int(spent["samples"]),
            "samples_per_s": round(spent["samples"] / spent["seconds"], 1),
            "data_wait": round(waited / spent["seconds"], 3),
            "peak_memory_gb": round(peak / GIGABYTE, 3),
        }

    def lines(self, row: dict[str, Any]) -> list[str]:
        """The row of `row` in words, and a cure where too much time went into waiting for data."""
        took = f"{row['hours']:.3g} hours" if row["hours"] >= 0.1 else f"{3600 * row['hours']:.3g} s"
        done = f"{row['devices']}: {took}, {row['samples']} samples, {row['samples_per_s']} samples/s"
        waiting = f"{row['data_wait']:.0%} of the time waiting for data, {row['peak_memory_gb']} GB peak memory"
        cured = row["data_wait"] > MOST_WAITING and self.batches >= FEWEST_STEPS
        cured = cured and row["data_wait"] * row["hours"] * 3600 >= SHORTEST_WAIT
        return [f"{done}, {waiting}", *([CURE] if cured else [])]


CURE = (
    f"more than {MOST_WAITING:.0%} of the time went into waiting for data; to cure that: more processes that decode "
    "ahead (--workers, where the recipe has it, as many as there are CPU cores per GPU), smaller images on disk, or "
    "webdataset shards (--data 'FOLDER/*.tar') on a local disk"
)


def device_name(device: torch.device) -> str:
    """A GPU's name, or the CPU with the number of its threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.get_num_threads()} threads)"


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of tensors on a GPU; else what this process held, or holds where no peak is known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().rss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
