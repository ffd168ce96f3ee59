"""A proposer of either recipe that is built in a moment, and images for it."""

from dataclasses import replace

import numpy as np
import torch

from kit.proposals import texts
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig

SMALL = {"backbone": "test_convnext", "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64}
TINY = {
    "openseg-proposals": ProposalConfig(**SMALL, rescale=(0.5, 2.0)),
    "maskformer": MaskFormerConfig(**SMALL, rescale=(0.5, 2.0)),
}


def make_proposer(recipe, seed=0, fresh=True, **changes):
    """In evaluation mode, with random weights. changes: of TINY."""
    torch.manual_seed(seed)
    config = replace(TINY[recipe], **changes)
    if recipe == "maskformer":
        return MaskFormerProposer(config, texts(), fresh).eval()
    return OpenSegProposer(config, fresh).eval()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
