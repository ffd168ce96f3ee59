"""From scores to the label of every pixel: rules with which protocols differ before and after the argmax.

B images, P phrases that are asked for, h w pixels of the scores, H W of the label map. SCLIP (Wang et al., ECCV 2024,
released code), ClearCLIP, NACLIP and ProxyCLIP turn the enlarged cosines into a softmax over all phrases, whose scale
is set by hand, and compare the best probability with a threshold; on VOC's 21 classes SCLIP also drops small classes.
TCL compares the score itself.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ovs_lite.inference import PartedScores, best_classes, resized_classes
from ovs_lite.tensors import at_least_float32


@dataclass(frozen=True)
class LabelRule:
    """How the best phrase of a pixel is found, and what its score is.

    softmax_scale: scores are multiplied by it and become a softmax over the phrases of the image; None: as they are.
    least_area: a class whose share of the foreground's pixels is not above it is dropped from the image; 0: none is.
    Raises ValueError for a scale that is not above 0 and for a share outside [0, 1).
    """

    softmax_scale: float | None = None
    least_area: float = 0.0

    def __post_init__(self):
        if self.softmax_scale is not None and not self.softmax_scale > 0:
            raise ValueError(f"got softmax_scale={self.softmax_scale}, expected a number above 0, or None")
        if not 0 <= self.least_area < 1:
            raise ValueError(f"got least_area={self.least_area}, expected a share in [0, 1)")


def best_by_rule(
    scores: torch.Tensor | PartedScores,
    size: tuple[int, ...],
    rule: LabelRule,
    owners: np.ndarray,
    ground: int | None = None,
    present: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P, h, w) -> the best score or probability and its phrase at `size` = (H, W), (B, H, W) each.

    owners: (P,) the class of each phrase. ground: the class that is the background, whose area does not count.
    present: (B, P) bool, the phrases that compete, default all. Where all are dropped the best is -inf, or
    probability 0, and the phrase says nothing. NaN stays NaN.
    """
    first, labels = best_classes(scores, size, present)
    best = first
    if rule.least_area:
        kept = large_classes(labels.cpu().numpy(), owners, ground, rule.least_area)
        best, labels = best_classes(scores, size, kept if present is None else kept & present)
    if rule.softmax_scale is not None:
        best = _probabilities(best, first, scores, rule.softmax_scale, present)
    return best, labels


def large_classes(labels: np.ndarray, owners: np.ndarray, ground: int | None, least: float) -> np.ndarray:
    """(B, H, W) phrases -> (B, P) bool: whose class has more than the share `least` of the foreground's pixels.

    The phrases of the background stay. SCLIP, released code: the share is of all pixels that are not labelled as the
    background before the threshold. Without a foreground every other class is dropped.
    """
    kept = np.zeros((len(labels), len(owners)), bool)
    for row, image in zip(kept, labels, strict=True):
        areas = np.bincount(owners[image].ravel(), minlength=int(owners.max()) + 1)
        if ground is not None and ground < len(areas):
            areas[ground] = 0
        row[:] = (areas > least * areas.sum())[owners] | (owners == ground)
    return kept


def _probabilities(
    best: torch.Tensor,
    first: torch.Tensor,
    scores: torch.Tensor | PartedScores,
    scale: float,
    present: np.ndarray | None,
) -> torch.Tensor:
    """(B, H, W): softmax of `best` among the phrases that were present, one plane at a time to bound the memory.

    first: the highest score of these, which is subtracted so that no exponential overflows.
    """
    best, first = at_least_float32(best), at_least_float32(first)
    absent = None if present is None else torch.from_numpy(~present).to(first.device)
    total = torch.zeros_like(first)
    for k, plane in enumerate(resized_classes(scores, first.shape[1:])):
        if absent is not None:
            plane = plane.masked_fill(absent[:, k, None, None], -torch.inf)
        total += (scale * (at_least_float32(plane) - first)).exp()
    found = (scale * (best - first)).exp() / total
    return torch.where(first == -torch.inf, torch.zeros_like(found), found)
