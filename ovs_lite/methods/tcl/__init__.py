"""TCL: masks grounded in a text, learned from image-text pairs alone.

Paper: Cha, Mun and Roh, "Learning to Generate Text-grounded Mask for Open-world Semantic Segmentation from Only
Image-Text Pairs" (CVPR 2023): Eq. 3-5 (grounder), Eq. 13 (argmax), Eq. 15 (knowledge preservation), appendix B; the
losses, Eq. 6-12, are in `ovs_lite.losses.tcl`. CLIP is frozen; the grounder is trained on top of it.
As in the released code, and not in the paper: masks are refined by PAMR at their own resolution, before the frozen
CLIP's masks are mixed in; those use the start values of Eq. 5 (scale 10, bias -2.5), not the learned ones; masks, not
embeddings, are resized to the image. Departures: class names are put into ViLD's 14 sentences, as for every method
here, and images have CLIP's statistics, unless an official checkpoint is loaded: it brings its nine sentences, and was
trained with ImageNet's statistics.
"""

from ovs_lite.methods.tcl.config import PRESETS, SOURCES
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import build
from ovs_lite.methods.trained import method_recipe

METHOD = Tcl
RECIPE = method_recipe(
    Tcl,
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    example="tcl --area-weight 0 --steps 40 --out runs/tcl-without-area",
)

__all__ = ["METHOD", "PRESETS", "RECIPE", "Tcl"]
