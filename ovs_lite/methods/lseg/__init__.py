"""LSeg+: every pixel learns the name of its class, from the annotated classes alone. OpenSeg's per-pixel baseline.

Papers: Li et al., "Language-driven Semantic Segmentation" (ICLR 2022), and OpenSeg (Ghiasi et al., ECCV 2022), section
4.3, "LSeg baseline": its own backbone and pyramid, all of them trained, a per-pixel cross-entropy with the text
embeddings of the seen classes as classifier, "LSeg+". Neither paper's code for it is public. Departures: embeddings and
targets meet at a quarter of the image's side; the temperature is learned, from 0.07, as in OpenSeg.
"""

from ovs_lite.clip import load_clip
from ovs_lite.methods.lseg.config import PRESETS, SOURCES
from ovs_lite.methods.lseg.method import LSeg
from ovs_lite.methods.lseg.training import build
from ovs_lite.methods.recipe import Recipe
from ovs_lite.methods.trained import load_method, save_method

METHOD = LSeg
RECIPE = Recipe(
    name="lseg",
    presets=PRESETS,
    sources=SOURCES,
    build=build,
    save=lambda task, path, config: save_method(
        task.method, path, {"steps": str(config.loop.steps), "seed": str(config.loop.seed), "data": config.data}
    ),
    load=lambda path, config: load_method("lseg", load_clip(config.clip, config.pretrained), path),
    weights=lambda config: "lseg.safetensors",
    example="lseg --steps 300 --out runs/lseg",
)
