"""Preparing batches while the current one trains."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch


class Prefetched:
    """Prepare the next step's batch in a thread while the current one trains. Same batches, same order."""

    def __init__(self, batches: Callable[[int], Any]):
        self.batches = batches
        self.ahead: dict[int, Future] = {}
        # one core for preparing: with more, its threads would get into the way of the training's
        self.pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, index: int):
        batch = self.ahead.pop(index, None) or self.pool.submit(self.batches, index)
        self.ahead = {index + 1: self.pool.submit(self.batches, index + 1)}
        return batch.result()


class WorkerPool:
    """Prepare the batches of the next steps in processes, each with one thread. Same batches, same order.

    batches: step -> tuple of tensors and plain values; it is pickled, and so is what it returns (tensors as arrays, so
    that no shared memory is needed). workers: number of processes.
    """

    def __init__(self, batches: Callable[[int], Any], workers: int):
        self.workers = workers
        self.ahead: dict[int, Future] = {}
        spawn = multiprocessing.get_context("spawn")  # a fork would share the device and its locks
        self.pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(batches,))

    def __call__(self, index: int) -> Any:
        wanted = range(index, index + 1 + 2 * self.workers)
        self.ahead = {i: self.ahead.get(i) or self.pool.submit(_work, i) for i in wanted}
        parts = self.ahead.pop(index).result()
        return tuple(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in parts)


_BATCHES: list[Callable[[int], Any]] = []  # of this worker process


def _start_worker(batches: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    _BATCHES.append(batches)


def _work(index: int) -> tuple:
    return tuple(part.numpy() if isinstance(part, torch.Tensor) else part for part in _BATCHES[-1](index))
