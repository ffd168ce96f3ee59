"""The symmetric contrastive loss of CLIP. B pairs."""

import torch
import torch.nn.functional as F

from ovs_lite.clip.model import MAX_SCALE


def info_nce(similarity: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE in both directions (TCL Eq. 7; CLIP, Radford et al. 2021, Fig. 3).

    similarity: (B, B) cosines, row b's positive in column b. logit_scale: scalar, the learnable log of 1/temperature;
    its exp is clamped at 100, as CLIP and TCL's released code do. Returns the mean of the row-wise and the column-wise
    cross-entropy, a scalar. Raises ValueError unless similarity is square and not empty.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or similarity.shape[0] == 0:
        raise ValueError(f"got similarity of shape {tuple(similarity.shape)}, expected (B, B) with B >= 1")
    logits = similarity * logit_scale.exp().clamp(max=MAX_SCALE)
    positives = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2
