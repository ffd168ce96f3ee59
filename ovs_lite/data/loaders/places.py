"""Which record stands at which place of which batch: a function of (seed, batch index), so a run can resume exactly."""

from collections.abc import Callable

import numpy as np

from ovs_lite import distributed


class Places:
    """index -> (epoch, place in the epoch, record) of every example in this process's share of that batch.

    Every record comes once per epoch, in a new order. Any number of threads may ask.
    records: how many there are.
    batch_size: B of all processes, a multiple of their number; each has its `distributed.shard`.
    order: (seed, epoch) -> the epoch's permutation of the records; default any permutation.
    Raises ValueError where B does not divide.
    """

    def __init__(self, records: int, batch_size: int, seed: int, order: Callable[[int, int], np.ndarray] | None = None):
        self.records, self.batch_size, self.seed = records, batch_size, seed
        self.order = order
        self._known: tuple[int, np.ndarray] = -1, np.empty(0, int)  # the last epoch and its order

    def __call__(self, index: int) -> list[tuple[int, int, int]]:
        count = distributed.world_size()
        if self.batch_size % count:
            raise ValueError(f"got batch_size={self.batch_size}, expected a multiple of the {count} processes")
        places = range(index * self.batch_size, (index + 1) * self.batch_size)
        found = [divmod(place, self.records) for place in distributed.shard(places)]
        return [(epoch, number, int(self._epoch(epoch)[number])) for epoch, number in found]

    def _epoch(self, epoch: int) -> np.ndarray:
        known, order = self._known  # read once: another thread may be in another epoch
        if known != epoch:
            if self.order is None:
                order = np.random.default_rng((self.seed, epoch, self.records)).permutation(self.records)
            else:
                order = self.order(self.seed, epoch)
            self._known = epoch, order
        return order
