"""OVSeg: CLIP is the bottleneck of two stages, so it is adapted to masked crops; masks come from MaskFormer.

Paper: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023): two stages (section
3.1), pairs of regions and nouns mined from captions (3.2, `methods.pair_mining`), mask prompt tuning (3.3,
`clip.mask_prompt`), the orders of tuning (A.4, `adaptation`), the ensemble (A.5, `method`). Departures are named there.
"""

from ovs_lite.methods.ovseg.adaptation import build, start
from ovs_lite.methods.ovseg.config import ABLATIONS, PRESETS, SOURCES
from ovs_lite.methods.ovseg.method import OVSeg
from ovs_lite.methods.trained import method_recipe

METHOD = OVSeg
RECIPE = method_recipe(
    OVSeg,
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    ablations=ABLATIONS,
    start=start,
    example="ovseg --data runs/pairs --tune tower --depth 0 --lr 3e-4 --weight-decay 0.2 --out runs/ovseg-tower",
)
