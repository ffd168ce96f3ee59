"""What a training does whose loader loses a worker."""

import multiprocessing

from kit.records import ramp_pair
from ovs_lite.data.loaders.pair_batches import PairBatches


def a_worker_is_killed() -> None:
    """Prints the numbers of both workers, then waits for batches that one of them should bring."""
    batches = PairBatches([ramp_pair(number, 8, 8) for number in range(5)], 2, 8, workers=2)
    batches(0)
    workers = multiprocessing.active_children()
    print(*(worker.pid for worker in workers), flush=True)
    workers[0].kill()
    for index in range(1, 100_000):
        batches(index)
