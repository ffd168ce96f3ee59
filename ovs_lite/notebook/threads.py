"""Several evaluations at once, in threads: a picture of the miniature is too small to be worth two of torch's."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from ovs_lite.distributed import one_thread

Item = TypeVar("Item")


def each(function: Callable[[Item], Any], items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
    """(item, function(item)) of all items, in their order.

    As many at once as torch has threads here, and then one thread of torch for each; one after another with a GPU.
    `function` may read what others read, and must not change it: a method that is not in evaluation mode, for one.
    After the first that fails none is started; its error is raised.
    """
    workers = 1 if torch.cuda.is_available() else min(torch.get_num_threads(), len(items))
    if workers < 2:
        yield from ((item, function(item)) for item in items)
        return
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = [pool.submit(function, item) for item in items]
        try:
            for item, result in zip(items, results, strict=True):
                yield item, result.result()
        finally:
            pool.shutdown(cancel_futures=True)
