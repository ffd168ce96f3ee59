"""Preparing batches while the current one trains."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

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
