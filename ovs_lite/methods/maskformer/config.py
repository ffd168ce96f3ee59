"""MaskFormer's settings: the miniature's, a handful of steps, and OVSeg's."""

from dataclasses import dataclass, replace

from ovs_lite.config import LoopConfig
from ovs_lite.methods.proposer import ProposalConfig


@dataclass(frozen=True)
class MaskFormerConfig(ProposalConfig):
    """As `ProposalConfig`, with the classes that the proposals are trained with."""

    queries: int = 100  # proposals per image
    layers: int = 3  # of the query decoder
    vocabulary: str = "icon-coco"  # names of the split's categories
    clip: str = "ViT-Lite-8"  # whose text tower embeds these names
    pretrained: str = "lite"  # its weights: lite, an open_clip tag, or a file
    no_object: float = 0.1  # weight of the "no object" class of unmatched proposals
    start: str = ""  # weights of maskformer that it starts from; none: the backbone's alone
    num_points: int = 0  # points per mask that the mask losses sample; 0: all pixels


LITE = MaskFormerConfig()
PRESETS = {
    "smoke": replace(LITE, loop=replace(LITE.loop, steps=4), batch=4, data="icon-smoke/icon-coco/train"),
    "lite": LITE,
    # OVSeg, section 4.1 and its released Swin-B configuration; MaskFormer's training otherwise.
    "paper": MaskFormerConfig(
        loop=LoopConfig(
            steps=120_000, lr=6e-5, muon_lr=0.0, weight_decay=0.01, schedule="poly", warmup=1500, grad_norm=0.01
        ),
        data="coco-stuff/train", vocabulary="coco-stuff", clip="ViT-L-14", pretrained="openai",
        batch=32, image_size=640, rescale=(0.5, 2.0), per="class",
        backbone="swin_base_patch4_window12_384.ms_in22k", backbone_pretrained=True,
        channels=256, queries=100, layers=6, heads=8,
    ),
}  # fmt: skip
SOURCES = {
    "OVSeg, section 4.1": "steps lr weight_decay schedule batch image_size",
    "OVSeg, section 4.1 (Swin-Base, pre-trained on ImageNet-21K)": "backbone backbone_pretrained",
    "OVSeg, section 4.1 (COCO-Stuff's 171 classes; OpenAI's CLIP)": "data vocabulary clip pretrained",
    "OVSeg, released Swin-B configuration": "warmup grad_norm backbone_factor",
    "OVSeg, released Swin-B configuration, of the short edge there and of the long side here": "rescale",
    "OVSeg, released Swin-B configuration (MaskFormer's numbers)": "queries layers no_object",
    "ours: what MaskFormer usually has; not looked up in the release": "heads channels",
    "OVSeg, released criterion (one mask per class, all pixels)": "per num_points",
    "OVSeg, section 4.1 (from the backbone alone)": "start",
    "MaskFormer: no running average, no accumulation": "ema accumulation",
    "ours: AdamW on everything, as in the paper, is muon_lr 0": "muon_lr",
    "ours: single precision": "precision",
    "ours, of no effect on what is learned": "seed recompute compile checkpoint_every log_every",
}
