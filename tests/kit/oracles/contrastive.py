"""InfoNCE, one pair and one value at a time."""

import torch


def slow_info_nce(similarity, logit_scale):
    """TCL Eq. 7: minus the logarithm of the own text's share in its row and of the own image's in its column.

    With gradients where its arguments have them; the scale is at most 100.
    """
    scores = torch.as_tensor(logit_scale, dtype=similarity.dtype).exp().clamp(max=100) * similarity
    total = 0.0
    for b in range(len(scores)):
        for line in (scores[b], scores[:, b]):
            top = line.max().detach()
            total = total + top + sum((value - top).exp() for value in line).log() - line[b]
    return total / (2 * len(scores))
