"""The optimiser by parameter shape: Muon for the matrices of a network's blocks, AdamW for everything else.

Muon is timm's, whose fallback groups are AdamW, so one optimiser holds both and either all of it steps or none.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from timm.optim import Muon
from torch import nn

from ovs_lite.config import LoopConfig

SCALAR_FACTOR = 10.0  # a temperature has far to go: its logarithm learns ten times faster than a weight
ADAMW = {"betas": (0.9, 0.98), "eps": 1e-8}
# As in torch.optim.Muon: Nesterov momentum of 0.95, and a learning rate that grows with sqrt(rows / columns) above 1.
MUON = {"nesterov": True, "momentum": 0.95, "adjust_lr_fn": "original", "weight_decay": 0.01}

Named = list[tuple[str, nn.Parameter]]


def is_block_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon should train it: a matrix (or 1x1 convolution) inside a block or stage, no embedding, no head."""
    matrix = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))
    inside = any(part in name for part in ("resblocks", "blocks", "stages"))
    return matrix and inside and "embedding" not in name


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: LoopConfig) -> torch.optim.Optimizer:
    """Muon on block matrices with `muon_lr`, AdamW on the rest with `lr`; with muon_lr = 0, AdamW on everything.

    From scratch on few images Muon decides whether a miniature transformer learns shapes at all. `backbone_factor`:
    of the learning rates of everything below a module called `backbone` (MaskFormer's ResNets: 0.1). Vectors and
    scalars (norms, biases, temperatures) have no weight decay. Parameters that are frozen are left out.
    """
    named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    chosen = {name for name, p in named if config.muon_lr > 0 and is_block_matrix(name, p)}
    rest = [(name, p) for name, p in named if name not in chosen]
    decay = {"weight_decay": config.weight_decay}
    groups = [
        *_groups([(n, p) for n, p in rest if p.ndim > 1], config, config.lr, **decay),
        *_groups([(n, p) for n, p in rest if p.ndim == 1], config, config.lr, weight_decay=0.0),
        *_groups([(n, p) for n, p in rest if p.ndim == 0], config, SCALAR_FACTOR * config.lr, weight_decay=0.0),
    ]
    if not chosen:
        return torch.optim.AdamW(groups, lr=config.lr, **ADAMW)
    fallback = [{**group, **ADAMW, "use_fallback": True, "nesterov": False} for group in groups]
    return Muon(_groups([(n, p) for n, p in named if n in chosen], config, config.muon_lr, **MUON) + fallback)


def _groups(named: Named, config: LoopConfig, lr: float, **options: Any) -> list[dict[str, Any]]:
    """Groups of the backbone's parameters and of the others; `peak` is the learning rate that a schedule scales."""
    inside = [(name, p) for name, p in named if "backbone" in name.split(".")]
    outside = [(name, p) for name, p in named if "backbone" not in name.split(".")]
    return [
        {"params": [p for _, p in part], "names": [name for name, _ in part], "lr": rate, "peak": rate, **options}
        for part, rate in ((outside, lr), (inside, lr * config.backbone_factor))
        if part
    ]


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
