"""The only place with calls between processes, and with how all of them end in good order.

Everything here is right with one process and no process group.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import count as count_from
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess

import torch
import torch.distributed as dist
from torch import nn

_starts = count_from()  # of process groups


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


def gather_rows(rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The rows of all processes, in the order of their numbers; a process may have none. No padding remains.

    rows: (N, ...), N of each process's own, the other axes and the type alike. device: where the group can gather.
    """
    if not _active():
        return rows
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[rank()] = len(rows)
    sizes = reduce_sum(sizes).tolist()
    padded = torch.zeros(max(sizes), *rows.shape[1:], dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(rows.device)


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
        means = reduce_sum(flat).div_(world_size()).split([p.numel() for p in group])
        for parameter, mean in zip(group, means, strict=True):
            parameter.grad = mean.view(parameter.shape)


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors with those of the main process, in place."""
    if _active():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def start_process_group() -> int:
    """Join the processes that torch's launcher or accelerate's started; without one nothing. Returns `rank()`.

    Each gets a GPU of its own where there are any. After `destroy_process_group` they may join again: each time under
    names of its own in the launcher's store, which keeps the addresses of earlier times.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        store, number, count = _launched()
        store = dist.PrefixStore(f"ovs-lite {next(_starts)}", store)
        dist.init_process_group("nccl" if gpu else "gloo", store=store, rank=number, world_size=count)
    return rank()


@cache
def _launched() -> tuple[dist.Store, int, int]:
    """The launcher's store, this process's number and how many there are. Kept: where no launcher holds the store, the
    main process serves it, and a second one on that port would meet processes that still ask the first."""
    return next(dist.rendezvous("env://"))


def group_device() -> torch.device:
    """Where the process group reduces and gathers tensors; the processor without a group."""
    return torch.device("cuda" if _active() and dist.get_backend() == "nccl" else "cpu")


def own_device() -> torch.device:
    """The GPU of this process's number on its machine, which launchers give; the first without; else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def barrier() -> None:
    """Wait until all processes are here."""
    if _active():
        dist.barrier()


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


class Interrupts:
    """While active, a signal of `signals` is remembered in `number` for the job to read, which then ends by `end`.

    Inside another one it also reads what that one has remembered. A second Ctrl-C kills; SIGTERM may come again, for
    launchers pass theirs on to processes that have got one of their own.
    """

    def __init__(self, *signals: signal.Signals):
        self.signals, self.own, self.previous = signals, 0, {}
        self.outer: Interrupts | None = None

    @property
    def number(self) -> int:
        """The signal that came, 0 for none."""
        return self.own or (self.outer.number if self.outer else 0)

    def end(self, message: str) -> None:
        """End this process, in all processes of a group: with exit code 0 after SIGTERM, whichever process got it, so
        that no launcher takes an orderly end for a failure; after Ctrl-C by KeyboardInterrupt."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt(message)
        print(message, file=sys.stderr)
        destroy_process_group()
        raise SystemExit(0)

    def _remember(self, number: int, _frame) -> None:
        self.own = number
        if number == signal.SIGINT:
            self._give_back()

    def _give_back(self) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())

    def __enter__(self):
        for number in self.signals:
            handler = getattr(signal.getsignal(number), "__self__", None)
            if isinstance(handler, Interrupts):
                self.outer = handler
                continue
            try:
                self.previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: leave signals to whoever owns them
                break
        return self

    def __exit__(self, *_):
        self._give_back()


def worker_pool(count: int) -> ProcessPoolExecutor:
    """So many processes that work for this one, with a thread each, and are gone when it is gone."""
    return ProcessPoolExecutor(count, get_context("spawn"), _begin)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread, because others work beside it; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_after, args=(parent_process(),), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    """At once, as a signal would: what is not finished is made again, or resumed."""
    parent.join()
    os._exit(1)
