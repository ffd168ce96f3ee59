"""LSeg+: every pixel learns the name of its class, from the annotated classes alone. OpenSeg's per-pixel baseline.

Papers: Li et al., "Language-driven Semantic Segmentation" (ICLR 2022), and OpenSeg (Ghiasi et al., ECCV 2022), section
4.3, "LSeg baseline": its own backbone and pyramid, all of them trained, a per-pixel cross-entropy with the text
embeddings of the seen classes as classifier, "LSeg+". Neither paper's code for it is public. Departures: embeddings and
targets meet at a quarter of the image's side; the temperature is learned, from 0.07, as in OpenSeg.
"""

from ovs_lite.methods.lseg.config import PRESETS, SOURCES
from ovs_lite.methods.lseg.method import LSeg
from ovs_lite.methods.lseg.training import build
from ovs_lite.methods.trained import method_recipe

METHOD = LSeg
RECIPE = method_recipe(
    LSeg,
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    example="lseg --steps 300 --out runs/lseg",
)
