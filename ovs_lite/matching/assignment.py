"""The one-to-one assignment of least total cost. N predictions, M targets."""

import torch
from scipy.optimize import linear_sum_assignment

from ovs_lite.tensors import at_least_float32


def hungarian(cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One-to-one assignment of least total cost: (N, M) -> (rows, cols), both (min(N, M),) int64, rows ascending.

    On a CPU by SciPy; the answer lies on the device of `cost`. Raises ValueError for a cost that is not a matrix or
    holds NaN or infinity, which would otherwise be matched in silence.
    """
    if cost.ndim != 2:
        raise ValueError(f"got a cost of shape {tuple(cost.shape)}, expected (N, M)")
    matrix = at_least_float32(cost.detach()).cpu()
    if not torch.isfinite(matrix).all():
        raise ValueError(f"got a cost of shape {tuple(cost.shape)} with NaN or infinity; did the training diverge?")
    rows, cols = linear_sum_assignment(matrix.numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(cols, device=cost.device)
