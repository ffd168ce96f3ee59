"""Contrastive pre-training of the miniature CLIPs, in the order that works from scratch on few images.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021), section 2.3;
loss: TCL Eq. 7. Departures, because both towers from scratch stay at chance for a hundred thousand images: (1) the text
tower is first trained on captions alone, two captions of the same scene being a positive pair; (2) an image tower is
then trained against that frozen text tower, as LiT does (Zhai et al., CVPR 2022); (3) in its first steps image
embeddings need not be normalised, which helps while the text tower knows captions only. Without normalisation an
untrained tower can express uncertainty through a short embedding. On the unit sphere every prediction is confident, and
the quickest way to a lower loss is to collapse all images to one point. No labels, no masks: captions only.
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
    example="clip ConvNeXt-Lite --text runs/clip/text.safetensors --freeze text --steps 8000 --muon-lr 0",
    word="model",
    model=Clip,
)
