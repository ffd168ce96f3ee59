"""A proposer of either kind that is built in a moment, and the classes it knows."""

import torch

from kit.clips import random_texts
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig

CLASSES = 5
KINDS = ("openseg-proposals", "maskformer")
TINY = {
    "backbone": "test_convnext", "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64,
    "rescale": (0.5, 2.0),
}  # fmt: skip


def texts():
    """(CLASSES, 12): the embeddings that "maskformer" is trained with."""
    return random_texts(CLASSES, 12, seed=9)


def make_proposer(kind, seed=0, fresh=True, **changes):
    torch.manual_seed(seed)
    if kind == "maskformer":
        return MaskFormerProposer(MaskFormerConfig(**TINY | changes), texts(), fresh).eval()
    return OpenSegProposer(ProposalConfig(**TINY | changes), fresh).eval()
