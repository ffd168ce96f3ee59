"""A proposer of either kind that is built in a moment, and images for it."""

import numpy as np
import torch

from kit.proposals import texts
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig

KINDS = ("openseg-proposals", "maskformer")
TINY = {
    "backbone": "test_convnext", "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64,
    "rescale": (0.5, 2.0),
}  # fmt: skip


def make_proposer(kind, seed=0, fresh=True, **changes):
    torch.manual_seed(seed)
    if kind == "maskformer":
        return MaskFormerProposer(MaskFormerConfig(**TINY | changes), texts(), fresh).eval()
    return OpenSegProposer(ProposalConfig(**TINY | changes), fresh).eval()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
