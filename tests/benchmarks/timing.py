"""Seconds of a call, for the benchmarks beside it."""

import time
from collections.abc import Callable
from typing import Any


def best_of(call: Callable[[], Any], repeats: int) -> float:
    """The shortest of `repeats` runs: what the machine was busy with besides only makes a run longer."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
