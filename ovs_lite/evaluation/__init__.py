"""Evaluation: exact counts over a whole data set, and the grid of mask sources against region classifiers."""

from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix, SegmentationScores
from ovs_lite.evaluation.metrics.recall import ProposalRecall, proposal_recall
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport, bootstrap_difference

__all__ = [
    "ConfusionMatrix", "ProposalRecall", "SegmentationReport", "SegmentationScores", "bootstrap_difference",
    "evaluate_segmentation", "proposal_recall",
]  # fmt: skip
