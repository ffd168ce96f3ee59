"""Which prediction is matched to which target: pairwise costs between masks and the assignment of least cost."""

from ovs_lite.matching.assignment import hungarian
from ovs_lite.matching.costs import focal_terms, pairwise_dice, pairwise_focal, pairwise_iou

__all__ = ["focal_terms", "hungarian", "pairwise_dice", "pairwise_focal", "pairwise_iou"]
