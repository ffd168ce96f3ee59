"""Contrastive pre-training of the miniature CLIPs.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021), section 2.3;
loss: TCL Eq. 7. The ConvNet goes on from its shipped weights. The vision transformer has a class token, as the papers'
CLIPs have, and starts from scratch in the ConvNet's joint space: next to its captions it imitates the ConvNet's
embeddings of whole images, never of places. Two things help its patches to learn where things are: most
steps show several things with captions that name them all, and the class token reads late (`late_reading`, which no
paper has). No labels, no masks, no masked images.
"""

from ovs_lite.clip import Clip
from ovs_lite.methods.clip_pretraining.config import PRESETS
from ovs_lite.methods.clip_pretraining.training import build, load, save
from ovs_lite.methods.recipe import Recipe

RECIPE = Recipe(
    name="clip",
    presets=PRESETS,
    build=build,
    save=save,
    load=load,
    weights=lambda config: f"{config.model}.safetensors",
    example="clip ConvNeXt-Lite --steps 2000 --draw-on cuda",
    word="model",
    model=Clip,
)
