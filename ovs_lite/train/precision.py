"""In which precision a training computes: what `LoopConfig.precision` asks for, on the machine that is there."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

AUTO = "auto"


def accelerator(precision: str) -> Accelerator:
    """One that computes in `chosen(precision)`.

    accelerate keeps the first precision of a process for ever; a notebook may train twice with different ones.
    Raises ValueError for fp16 without a GPU, which accelerate would train in single precision.
    """
    on_gpu = torch.cuda.is_available()
    if precision == "fp16" and not on_gpu:
        raise ValueError("got precision fp16 on a processor, expected bf16 or no (or auto); fp16 needs a GPU")
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=chosen(precision), cpu=not on_gpu)


def chosen(precision: str) -> str:
    """The precision itself; for auto, bf16 on a machine that multiplies in it, else no."""
    return precision if precision != AUTO else "bf16" if multiplies_bf16() else "no"


def multiplies_bf16() -> bool:
    """Whether the GPU, or the processor where there is none, has instructions for bf16.

    Without them PyTorch computes in it all the same: two to three times as slowly as in single precision.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in asked)
