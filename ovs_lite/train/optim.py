"""Optimisers by parameter shape: Muon for the matrices of a tower's blocks, AdamW for everything else."""

from collections.abc import Iterable

import torch
from torch import nn

SCALAR_FACTOR = 10.0  # a temperature has far to go: its logarithm learns ten times faster than a weight


def is_block_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon should train it: a matrix (or 1x1 convolution) inside a block or stage, no embedding, no head."""
    matrix = parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))
    inside = any(part in name for part in ("resblocks", "blocks", "stages"))
    return matrix and inside and "embedding" not in name


class BlockOptimizer:
    """Muon on block matrices (lr `muon_lr`), AdamW on the rest (lr `lr`). With muon_lr = 0, AdamW on everything.

    From scratch on few pictures Muon decides whether a miniature transformer learns shapes at all. 1x1 convolutions
    are handed to Muon as matrices that share their storage. backbone_factor: of the learning rates of everything below
    a module called `backbone` (MaskFormer's ResNets: 0.1). Vectors and scalars (norms, biases) have no weight decay.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        muon_lr: float,
        weight_decay: float,
        backbone_factor: float = 1.0,
    ):
        named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        chosen = [(name, p) for name, p in named if muon_lr > 0 and is_block_matrix(name, p)]
        kept = {id(p) for _, p in chosen}
        rest = [(name, p) for name, p in named if id(p) not in kept]
        self.pairs = [(p, p if p.ndim == 2 else nn.Parameter(p.data.flatten(1))) for _, p in chosen]
        views = [(name, view) for (name, _), (_, view) in zip(chosen, self.pairs, strict=True)]
        groups = [
            *_groups([(n, p) for n, p in rest if p.ndim > 1], backbone_factor, weight_decay=weight_decay),
            *_groups([(n, p) for n, p in rest if p.ndim == 1], backbone_factor, weight_decay=0.0),
            *_groups([(n, p) for n, p in rest if p.ndim == 0], backbone_factor, SCALAR_FACTOR, weight_decay=0.0),
        ]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))]
        self.base_lr = [lr]
        if self.pairs:
            self.parts.append(torch.optim.Muon(_groups(views, backbone_factor), lr=muon_lr, weight_decay=0.01))
            self.base_lr.append(muon_lr)

    def set_factor(self, factor: float) -> None:
        """Scale every learning rate by the schedule's factor."""
        for part, base in zip(self.parts, self.base_lr, strict=True):
            for group in part.param_groups:
                group["lr"] = base * factor * group.get("factor", 1.0)

    def share_gradients(self) -> None:
        """Let Muon's views of 1x1 convolutions see the gradients. Call after backward, before clipping."""
        for parameter, view in self.pairs:
            if view is not parameter:
                view.grad = None if parameter.grad is None else parameter.grad.flatten(1)

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Apply and clear the gradients. scaler: of fp16, already unscaled; it skips the step after an overflow."""
        for part in self.parts:
            part.step() if scaler is None else scaler.step(part)
        if scaler is not None:
            scaler.update()
        for parameter, _ in self.pairs:
            parameter.grad = None
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimiser's state as named tensors, for a checkpoint without pickles."""
        flat = {}
        for number, part in enumerate(self.parts):
            for index, state in part.state_dict()["state"].items():
                flat |= {f"{number}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return flat

    def load_tensors(self, flat: dict[str, torch.Tensor]) -> None:
        """Restore what `tensors` gave. Raises ValueError when it belongs to another set of parameters."""
        states: list[dict[int, dict]] = [{} for _ in self.parts]
        for name, value in flat.items():
            number, index, key = name.split(".", 2)
            owned = self._parameters(int(number))
            if int(index) >= len(owned) or (value.ndim and value.shape != owned[int(index)].shape):
                raise ValueError(f"got optimiser state {name} of {tuple(value.shape)}: another model or other options")
            states[int(number)].setdefault(int(index), {})[key] = value
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})

    def _parameters(self, number: int) -> list[torch.Tensor]:
        """The parameters of one part in the order of its state's indices; none for a part that is not there."""
        groups = self.parts[number].param_groups if number < len(self.parts) else []
        return [parameter for group in groups for parameter in group["params"]]


def _groups(
    named: list[tuple[str, torch.Tensor]], backbone_factor: float, factor: float = 1.0, **options: float
) -> list[dict]:
    """The optimiser's parameter groups: the backbone's and the others, each with its learning rate's factor."""
    inside = [p for name, p in named if "backbone" in name.split(".")]
    outside = [p for name, p in named if "backbone" not in name.split(".")]
    found = [(outside, factor), (inside, factor * backbone_factor)]
    return [{"params": params, "factor": share, **options} for params, share in found if params]
