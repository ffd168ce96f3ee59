"""Evaluation: exact counts over a whole data set, intervals, and the grid of mask sources and region classifiers."""

from ovs_lite.evaluation.metrics.confusion import ConfusionMatrix, SegmentationScores
from ovs_lite.evaluation.metrics.intervals import (
    Estimate,
    mean_estimate,
    mean_interval,
    miou_difference,
    miou_double_difference,
    miou_interval,
    ratio_interval,
)
from ovs_lite.evaluation.metrics.panoptic import PanopticQuality, PanopticScores
from ovs_lite.evaluation.metrics.recall import proposal_recall
from ovs_lite.evaluation.panoptic import PanopticReport, evaluate_panoptic, pq_difference, pq_interval
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.evaluation.segmentation_report import SegmentationReport

__all__ = [
    "ConfusionMatrix", "Estimate", "PanopticQuality", "PanopticReport", "PanopticScores", "SegmentationReport",
    "SegmentationScores", "evaluate_panoptic", "evaluate_segmentation", "mean_estimate", "mean_interval",
    "miou_difference", "miou_double_difference", "miou_interval", "pq_difference", "pq_interval", "proposal_recall",
    "ratio_interval",
]  # fmt: skip
