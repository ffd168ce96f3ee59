"""OpenSeg: class-agnostic masks first, then caption words aligned to masks.

Paper: Ghiasi, Gu, Cui and Lin, "Scaling Open-Vocabulary Image Segmentation with Image-Level Labels" (ECCV 2022): masks
by best match (section 3.1, Eq. 1), words to regions by the grounding loss (3.2, Eq. 2-5), pseudo masks for images that
have captions only (3.3), inference (3.4, Eq. 6). The losses are in `ovs_lite.losses.masks` and `.grounding`. The paper
leaves open, or puts into an appendix that we have not: alpha of Eq. 5 (4 by its authors' slides), where tau starts, the
number of decoder layers, how a teacher's proposals become pseudo masks. Its ALIGN is not public: the backbone starts
from the CLIP that also reads the words. Departures: AdamW and Muon; F_z may start as that CLIP's own last feature map
(`network.OpenSegNetwork`), so that it begins as CLIP with proposals and grounding has to add to it.
"""

from ovs_lite.methods.openseg.config import ABLATIONS, PRESETS, SOURCES
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.training import build, start
from ovs_lite.methods.trained import method_recipe

METHOD = OpenSeg
RECIPE = method_recipe(
    OpenSeg,
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    ablations=ABLATIONS,
    start=start,
    example="openseg --steps 300 --alpha 0 --out runs/openseg-without-masks",
)
