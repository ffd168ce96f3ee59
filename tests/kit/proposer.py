"""A proposer of either kind that is built in a moment, and pictures for it."""

from dataclasses import replace

import numpy as np
import torch

from kit.proposals import texts
from ovs_lite.config import ProposalConfig
from ovs_lite.methods.proposer import MaskProposer

TINY = ProposalConfig("test_convnext", channels=16, queries=6, layers=1, heads=2, image_size=64, scale=(0.5, 2.0))


def make_proposer(kind, seed=0, **changes):
    torch.manual_seed(seed)
    return MaskProposer(kind, replace(TINY, **changes), texts() if kind == "maskformer" else None).eval()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
