"""Several trainings of one recipe, as a table of variants needs them, on all cores of a machine without a GPU.

Steps of the miniature are too small to be worth two threads. Two trainings at once, a core each, take two thirds to
four fifths of the time of one after another on both cores, which share their memory
(`tests/benchmarks/bench_side_by_side.py`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
import torch

from ovs_lite.distributed import one_thread, worker_pool
from ovs_lite.methods import get_recipe
from ovs_lite.train.command import run_recipe
from ovs_lite.train.launch import launch
from ovs_lite.train.loop import OnStep

MOST_AT_ONCE = 4
MEMORY_OF_ONE = 2 << 30  # bytes; a process that trains in profile lite takes 1.6 GB


def launch_each(
    name: str,
    configs: Mapping[str, Any],
    out: str | Path,
    on_step: Mapping[str, OnStep] | None = None,
    fresh: bool = False,
    done: Callable[[str], None] = lambda title: None,
) -> dict[str, Any]:
    """Train a recipe once per configuration, in out/TITLE; returns what `launch` returns for each, in their order.

    configs: title -> configuration. on_step: title -> what is called after each step of that training, which then runs
    in this process. done: called with a title when its training has ended.
    One of them in this process; how many at once, `trainings_at_once` says. Then each has one thread, so no number
    depends on who trained what. On one core, or with a GPU, one follows another, as `launch` would train them.
    After the first that fails none is started; what it raised is raised when the running ones have ended.
    """
    folder, watched, trained = Path(out), dict(on_step or {}), {}
    mine, anyones = (deque(t for t in configs if (t in watched) == here) for here in (True, False))
    lock = Lock()
    others = min(trainings_at_once(), len(configs)) - 1

    def work(queues: Sequence[deque[str]], train: Callable[[str], Any]) -> None:
        for title in _taken(queues):
            try:
                trained[title] = train(title)
            except BaseException:
                mine.clear()
                anyones.clear()
                raise
            with lock:
                done(title)

    def here(title: str) -> Any:
        return launch(name, configs[title], folder / title, watched.get(title), 1, fresh)

    def elsewhere(worker: Executor, title: str) -> Any:
        path, printed = worker.submit(_trained, name, configs[title], folder / title, fresh).result()
        print(printed, end="", flush=True)
        return get_recipe(name).load(path, configs[title])

    with ExitStack() as stack:
        if others:
            stack.enter_context(one_thread())
        workers = [stack.enter_context(worker_pool(1)) for _ in range(others)]
        feeders = stack.enter_context(ThreadPoolExecutor(max(1, others)))
        fed = [feeders.submit(work, [anyones], partial(elsewhere, worker)) for worker in workers]
        work([mine, anyones], here)
        for one in fed:
            one.result()
    return {title: trained[title] for title in configs}


def trainings_at_once() -> int:
    """One with a GPU, else one per thread that torch has here, as memory allows, and `MOST_AT_ONCE` at the most."""
    if torch.cuda.is_available():
        return 1
    return max(1, min(torch.get_num_threads(), MOST_AT_ONCE, psutil.virtual_memory().available // MEMORY_OF_ONE))


def _taken(queues: Sequence[deque[str]]) -> Iterator[str]:
    """What is first in a queue, until all are empty; others may take from them at the same time."""
    for queue in queues:
        with suppress(IndexError):
            while True:
                yield queue.popleft()


def _trained(name: str, config: Any, out: Path, fresh: bool) -> tuple[Path, str]:
    """In a worker: where the weights are, and what was printed."""
    with redirect_stdout(StringIO()) as printed:
        path = run_recipe(get_recipe(name), config, out, fresh, progress=False)
    return path, printed.getvalue()
