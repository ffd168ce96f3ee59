"""Evaluation: exact counts over a whole data set, intervals, and the grid of mask sources and region classifiers."""

from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix, SegmentationScores
from ovs_lite.evaluation.metrics.intervals import (
    Estimate,
    mean_estimate,
    mean_interval,
    miou_difference,
    miou_interval,
)
from ovs_lite.evaluation.metrics.recall import ProposalRecall, proposal_recall
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport

__all__ = [
    "ConfusionMatrix", "Estimate", "ProposalRecall", "SegmentationReport", "SegmentationScores",
    "evaluate_segmentation", "mean_estimate", "mean_interval", "miou_difference", "miou_interval", "proposal_recall",
]  # fmt: skip
