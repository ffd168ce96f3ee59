"""The optimiser by parameter shape, Muon for the matrices of a network's blocks, AdamW for the rest; its schedules.

Muon is timm's, whose fallback groups are AdamW, so one optimiser holds both and either all of it steps or none.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import timm.optim.muon
import torch
from torch import nn

from ovs_lite.config import LoopConfig
from ovs_lite.train.precision import multiplies_bf16

SCALAR_FACTOR = 10.0  # a temperature has far to go: its logarithm learns ten times faster than a weight
ADAMW = {"betas": (0.9, 0.98), "eps": 1e-8}
# As in torch.optim.Muon: Nesterov momentum of 0.95, and a learning rate that grows with sqrt(rows / columns) above 1.
MUON = {"nesterov": True, "momentum": 0.95, "adjust_lr_fn": "original", "weight_decay": 0.01}
# Schedules: the factor of the learning rates by the share of the steps after the warm-up, in [0, 1].
CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.02 + (1 - 0.02) * 0.5 * (1 + math.cos(math.pi * progress)),  # ends at 0.02
    "poly": lambda progress: (1 - progress) ** 0.9,  # as MaskFormer and OVSeg train, who count from step 0
    # Uni-OVSeg's milestones: 93,500 and 104,500 of 110,000 steps
    "step": lambda progress: 0.1 ** sum(progress >= milestone for milestone in (0.85, 0.95)),
    "constant": lambda progress: 1.0,
}


class Muon(timm.optim.Muon):
    """timm's, whose Newton-Schulz iteration runs in bf16; on a machine without instructions for that in float32.

    There float32 takes a quarter of the time. timm has no option for it, so its function is replaced while it steps.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """As timm's."""
        module, name = timm.optim.muon, "zeropower_via_newtonschulz"
        iterate = getattr(module, name)
        if not multiplies_bf16():
            setattr(module, name, partial(iterate, dtype=torch.float32))
        try:
            return super().step(closure)
        finally:
            setattr(module, name, iterate)


def is_block_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon should train it: a matrix (or 1x1 convolution) inside a block or stage, no embedding, no head."""
    matrix = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))
    inside = any(part in name for part in ("resblocks", "blocks", "stages"))
    return matrix and inside and "embedding" not in name


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: LoopConfig) -> torch.optim.Optimizer:
    """Muon on block matrices with `muon_lr`, AdamW on the rest with `lr`; with muon_lr = 0, AdamW on everything.

    From scratch on few images Muon decides whether a miniature transformer learns shapes at all. `backbone_factor`:
    of the learning rates of everything below a module called `backbone` (MaskFormer's ResNets: 0.1); 0 freezes it, so
    that no gradient is computed. Vectors and scalars (norms, biases, temperatures) have no weight decay. Parameters
    that are frozen are left out.
    """
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        of_backbone = "backbone" in name.split(".")
        if of_backbone and config.backbone_factor == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        muon, matrix = config.muon_lr > 0 and is_block_matrix(name, parameter), parameter.ndim > 1
        rate = config.muon_lr if muon else config.lr * (1.0 if parameter.ndim else SCALAR_FACTOR)
        rate *= config.backbone_factor if of_backbone else 1.0
        options = MUON if muon else {**ADAMW, "weight_decay": config.weight_decay if matrix else 0.0}
        rates = {"lr": rate, "peak": rate}  # a schedule scales the peak
        group = groups.setdefault((muon, rate, matrix), {"params": [], "names": [], **rates, **options})
        group["params"].append(parameter)
        group["names"].append(name)
    if not any(muon for muon, *_ in groups):
        return torch.optim.AdamW(groups.values(), lr=config.lr)
    fallback = {"use_fallback": True, "nesterov": False}
    return Muon([group if muon else group | fallback for (muon, *_), group in groups.items()])


def learning_rate_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The factor of a step: linear up to 1 over `warmup` steps, then `schedule`, a name of CURVES, until `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return CURVES[schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every learning rate to its peak times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def update(optimizer: torch.optim.Optimizer, norm: float, scaler: torch.amp.GradScaler | None = None) -> None:
    """Step and clear the gradients, which are averaged, unscaled and clipped. norm: of the gradient before clipping.

    scaler: of fp16. After an overflow in any part, where the norm is not finite, nothing steps and the scale shrinks.
    """
    if scaler is None:
        optimizer.step()
    else:
        if abs(norm) < float("inf"):
            scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as named tensors, "parameter|what", for a checkpoint without pickles."""
    return {
        f"{name}|{key}": torch.as_tensor(value)
        for name, parameter in _named(optimizer)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore what `state_tensors` gave. Raises ValueError when it belongs to other parameters or another optimiser."""
    known, kinds = dict(_named(optimizer)), _state_names(optimizer)
    for full, value in tensors.items():
        name, _, key = full.partition("|")
        if key not in kinds.get(name, ()) or (value.ndim and value.shape != known[name].shape):
            raise ValueError(f"got optimiser state {full} of {tuple(value.shape)}: another model or other options")
        where = value.device if key == "step" else known[name].device
        optimizer.state[known[name]][key] = bool(value) if key == "use_muon" else value.to(where)


def _state_names(optimizer: torch.optim.Optimizer) -> dict[str, set[str]]:
    """{parameter: what an optimiser keeps of it}; timm's Muon also notes which of its two ways it takes."""
    adamw, route = {"step", "exp_avg", "exp_avg_sq"}, {"use_muon"} if isinstance(optimizer, Muon) else set()
    return {
        name: route | (adamw if group.get("use_fallback", not route) else {"momentum_buffer"})
        for group in optimizer.param_groups
        for name in group["names"]
    }


def _named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)
