"""The symmetric contrastive loss of CLIP. B pairs."""

import torch
import torch.nn.functional as F

from ovs_lite.clip.model import MAX_SCALE
from ovs_lite.tensors import at_least_float32


def info_nce(
    similarity: torch.Tensor, logit_scale: torch.Tensor, positives: torch.Tensor | None = None
) -> torch.Tensor:
    """InfoNCE in both directions (TCL Eq. 7; CLIP, Radford et al. 2021, Fig. 3).

    similarity: (B, B) cosines, row b's positive in column b. logit_scale: scalar, the learnable log of 1/temperature;
    its exp is clamped at 100, as CLIP and TCL's released code do. positives: (B, B) bool with a True in every row and
    column, where several fit, such as words that a batch repeats; the wanted distribution is then even over them.
    Default: the diagonal alone. Returns the mean of the row-wise and the column-wise cross-entropy, a scalar, computed
    in float32 or wider. Raises ValueError unless similarity is square and not empty, and positives fit it.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or similarity.shape[0] == 0:
        raise ValueError(f"got similarity of shape {tuple(similarity.shape)}, expected (B, B) with B >= 1")
    logits = at_least_float32(similarity) * logit_scale.exp().clamp(max=MAX_SCALE)
    if positives is None:
        wanted = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2
    if positives.shape != logits.shape or not bool(positives.any(0).all() & positives.any(1).all()):
        given = f"positives {tuple(positives.shape)}"
        raise ValueError(f"got {given}, expected {tuple(logits.shape)} with at least one in every row and column")
    shares = positives.to(logits.dtype)
    rows, columns = shares / shares.sum(1, keepdim=True), shares.T / shares.T.sum(1, keepdim=True)
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, columns)) / 2
