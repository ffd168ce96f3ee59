"""Evaluation: exact counts over a whole data set, and the grid of mask sources against region classifiers."""

from ovs_lite.evaluation.confusion import ConfusionMatrix, SegmentationScores
from ovs_lite.evaluation.recall import ProposalRecall, proposal_recall

__all__ = ["ConfusionMatrix", "ProposalRecall", "SegmentationScores", "proposal_recall"]
