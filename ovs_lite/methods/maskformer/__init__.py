"""MaskFormer as OVSeg modifies it: proposals with an embedding in CLIP's space, one-to-one matching, "no object".

Papers: Cheng, Schwing and Kirillov, "Per-Pixel Classification is Not All You Need for Semantic Segmentation" (NeurIPS
2021), section 3; Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), section 3.1.
"""

from ovs_lite.methods.maskformer.config import PRESETS, SOURCES
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.maskformer.training import build
from ovs_lite.methods.proposer import proposer_recipe

RECIPE = proposer_recipe(
    name="maskformer",
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    example="maskformer --steps 2000 --batch 16 --ema 0.999",
    model=MaskFormerProposer,
)
