"""The only place with calls between processes. Everything here is right with one process and no process group."""

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import nn


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


def is_first() -> bool:
    """`is_main`, known before there is a process group, too: launchers number their processes in $RANK."""
    return int(os.environ.get("RANK", rank())) == 0


class _Gather(torch.autograd.Function):
    """All processes' rows; backward sums every process's gradient of this process's rows."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return reduce_sum(gradient).chunk(world_size())[rank()]


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate equal-shaped tensors of all processes along axis 0; gradients flow back to every process.

    With `average_gradients` afterwards, a loss over the gathered batch has the gradient of one process with the whole
    batch.
    """
    return _Gather.apply(tensor.contiguous()) if _active() else tensor


def reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over processes of a count or total; a new tensor, no gradient."""
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    if _active():
        dist.all_reduce(total)
    return total


def total_count(count: int, device: torch.device) -> int:
    """A count summed over processes. device: where the group can reduce."""
    return int(reduce_sum(torch.tensor(float(count), dtype=torch.float64, device=device))) if _active() else count


def largest(count: int, device: torch.device) -> int:
    """The largest of all processes' counts. device: where the group can reduce."""
    most = torch.tensor(count, device=device)
    if _active():
        dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process; the same answer in all. device: where the group can reduce."""
    return bool(reduce_sum(torch.tensor(float(flag), device=device)))


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over processes; one that only some processes have counts as 0 in the others.

    Unlike DistributedDataParallel it does not need the loss to come out of one module's `forward`.
    """
    parameters = list(parameters)
    if not _active() or not parameters:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    used = [p for p, count in zip(parameters, reduce_sum(present).tolist(), strict=True) if count > 0]
    for dtype in sorted({p.dtype for p in used}, key=str):
        group = [p for p in used if p.dtype == dtype]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in group])
        means = (reduce_sum(flat) / world_size()).split([p.numel() for p in group])
        for parameter, mean in zip(group, means, strict=True):
            parameter.grad = mean.view(parameter.shape)


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors with those of the main process, in place."""
    if _active():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def destroy_process_group() -> None:
    """Wait for all processes, then destroy the process group, where there is one.

    Call it last: a process that exits while the group is alive can abort, and the launcher then reports a failure.
    """
    if _active():
        dist.barrier()
        dist.destroy_process_group()


def shard(items: Sequence, index: int | None = None, count: int | None = None) -> Sequence:
    """This process's share: every count-th item from index. The shares are disjoint and together everything."""
    index, count = rank() if index is None else index, world_size() if count is None else count
    return items[index::count]
