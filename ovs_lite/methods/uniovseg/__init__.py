"""Uni-OVSeg: masks from images with unlabelled masks, meaning from images with texts, and no image that has both.

Paper: Wang et al., "Open-Vocabulary Segmentation with Unpaired Mask-Text Supervision" (2024): a promptable segmenter
that learns masks without names (section 3, appendix A; `prompts`, `mask_decoder`, `segmenter`, `training`), the
alignment of its masks with the entities of captions (section 3.3, Eq. 5-8; `regions`, `adapter`,
`alignment_training`), and both as one method (`method`). The losses are in `ovs_lite.losses.prompted_masks` and
`ovs_lite.losses.alignment`, the matching in `ovs_lite.matching`, the pixel decoder in `ovs_lite.models.pixel_decoder`,
better captions in `methods.refinement`. Of training nothing was released but settings; each file says what is the
paper's, what the released model's, and what had to be chosen. In the paper both parts learn together; here the masks
are learned first.
"""

from ovs_lite.methods.trained import method_recipe
from ovs_lite.methods.uniovseg.alignment_config import PRESETS, SOURCES
from ovs_lite.methods.uniovseg.alignment_training import build
from ovs_lite.methods.uniovseg.method import UniOVSeg

METHOD = UniOVSeg
RECIPE = method_recipe(
    UniOVSeg,
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    example="uniovseg --segmenter runs/uniovseg-masks/proposals.safetensors --loss cosine --out runs/uniovseg-cosine",
)
