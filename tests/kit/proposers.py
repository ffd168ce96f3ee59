"""A proposer of either kind that is built in a moment, and the classes it knows."""

from pathlib import Path

import torch

from kit.clips import random_texts
from ovs_lite.data import parts
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig
from ovs_lite.methods.pseudo_masks import write_pseudo_masks

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


def write_image_by_image(least, *files):
    """In a process of its own: the pseudo masks in parts of one image; prints whether it joined them."""
    parts.PART = 1
    print(write_pseudo_masks(*map(Path, files), least=float(least), progress=False))
