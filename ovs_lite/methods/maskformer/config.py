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
        data="coco-panoptic/train", vocabulary="coco-stuff", clip="ViT-L-14", pretrained="openai",
        batch=32, image_size=640, rescale=(0.5, 2.0), per="class",
        backbone="swin_base_patch4_window12_384.ms_in22k", backbone_pretrained=True,
        channels=256, queries=100, layers=6, heads=8,
    ),
}  # fmt: skip
