"""Settings of OpenSeg's mask proposals: the miniature's, a handful of steps, and the paper's."""

from dataclasses import replace

from ovs_lite.config import LoopConfig
from ovs_lite.methods.proposer import ProposalConfig

LITE = ProposalConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data="icon-smoke/icon-coco/train"),
    "lite": LITE,
    # Section 4.1. Not in the paper: heads, layers, clipping, warm-up, and the optimiser (ours is AdamW). ALIGN's
    # weights are not public; EfficientNet-B7 from NoisyStudent is the paper's nearest (its Table 3; there lr 0.08).
    "paper": ProposalConfig(
        loop=LoopConfig(steps=30_000, lr=0.005, muon_lr=0.0, weight_decay=1e-5, warmup=500),
        data="coco-panoptic/train", batch=1024, image_size=640, rescale=(0.8, 1.2),
        backbone="tf_efficientnet_b7.ns_jft_in1k", backbone_pretrained=True,
        channels=640, queries=128, layers=6, heads=8,
    ),
}  # fmt: skip
