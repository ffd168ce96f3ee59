"""The only place with calls between processes. Everything here is right with one process and no process group."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def _active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 without a process group."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if _active() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate equal-shaped tensors of all processes along axis 0; gradients flow back to every process.

    Under DistributedDataParallel, which averages gradients over processes, a loss over the gathered batch then has the
    gradient of one process with the whole batch.
    """
    return torch.cat(all_gather(tensor.contiguous())) if _active() else tensor


def reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over processes of a count or total; a new tensor, no gradient."""
    total = tensor.detach().clone()
    if _active():
        dist.all_reduce(total)
    return total


def shard(items: Sequence, index: int | None = None, count: int | None = None) -> Sequence:
    """This process's share: every count-th item from index. The shares are disjoint and together everything."""
    index, count = rank() if index is None else index, world_size() if count is None else count
    return items[index::count]
