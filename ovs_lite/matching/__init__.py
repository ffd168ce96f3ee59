"""Which prediction is matched to which target: pairwise costs between masks and the assignment of least cost."""

from ovs_lite.matching.assignment import hungarian
from ovs_lite.matching.costs import exact_iou, focal_terms, pairwise_dice, pairwise_focal, pairwise_iou
from ovs_lite.matching.entities import match_masks_to_entities
from ovs_lite.matching.prompts import best_of_k, many_to_many, one_to_one

__all__ = [
    "best_of_k",
    "exact_iou",
    "focal_terms",
    "hungarian",
    "many_to_many",
    "match_masks_to_entities",
    "one_to_one",
    "pairwise_dice",
    "pairwise_focal",
    "pairwise_iou",
]
