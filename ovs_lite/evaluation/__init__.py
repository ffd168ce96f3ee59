"""Evaluation: exact counts over a whole data set, and the grid of mask sources against region classifiers."""

from ovs_lite.evaluation.confusion import ConfusionMatrix, SegmentationScores

__all__ = ["ConfusionMatrix", "SegmentationScores"]
