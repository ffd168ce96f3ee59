"""Less memory or more speed from a network's repeated blocks: activation checkpointing and `torch.compile`."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ovs_lite.config import NO_COMPILER, LoopConfig
from ovs_lite.files import one_line

# What networks call the containers of their blocks: open_clip's ViT; timm, ConvNeXt, our decoders; Swin, ours.
CONTAINERS = ("resblocks", "blocks", "stages", "layers")


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The smallest numbered modules below containers of that name, such as `visual.transformer.resblocks.3`."""
    pattern = re.compile(rf"(?:.*\.)?(?:{'|'.join(CONTAINERS)})(?:\.\d+)+")
    named = {name: module for name, module in network.named_modules() if pattern.fullmatch(name)}
    return [module for name, module in named.items() if not any(other.startswith(f"{name}.") for other in named)]


@contextmanager
def economical(network: nn.Module, config: LoopConfig) -> Iterator[None]:
    """While active, blocks follow `config.recompute` and `config.compile`; names and values of weights stay.

    recompute: a block keeps its input alone for the backward pass and is computed again there, with the same random
        numbers (Chen et al. 2016, "Training deep nets with sublinear memory cost"): same loss, same gradients.
    compile: a compiler that does not work here is reported in a warning, and the blocks run as they are.
    """
    wanted = [wrapper for wrapper in (_compiler(config.compile), _recomputed if config.recompute else None) if wrapper]
    changed = blocks_of(network) if wanted else []
    for block in changed:
        for wrapper in wanted:
            block.forward = wrapper(block.forward)
    try:
        yield
    finally:
        for block in changed:
            del block.forward  # the class's own again


def _recomputed(forward: Callable) -> Callable:
    return partial(checkpoint, forward, use_reentrant=False)


def _compiler(backend: str) -> Callable[[Callable], Callable] | None:
    """What compiles a function; None where nothing shall, or can, which a function of one line tries."""
    if backend == NO_COMPILER:
        return None
    compiled = partial(torch.compile, backend=backend)
    try:
        compiled(lambda x: x * 2 + 1)(torch.ones(2, device="cuda" if torch.cuda.is_available() else "cpu"))
    except Exception as error:  # a dozen kinds: no compiler, no triton, no such backend, a system without them
        reason = f"{type(error).__name__}: {one_line(error)}"[:300]
        warnings.warn(f"compile={backend} does not work here and is left out ({reason})", stacklevel=4)
        return None
    return compiled
