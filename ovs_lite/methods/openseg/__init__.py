"""OpenSeg: class-agnostic masks first, then caption words aligned to masks. So far: the masks.

Paper: Ghiasi, Gu, Cui and Lin, "Scaling Open-Vocabulary Image Segmentation with Image-Level Labels" (ECCV 2022),
section 3.1, Eq. 1. Proposals have no class and no score; regions that nobody annotated cost nothing in training.
"""

from ovs_lite.methods.openseg.config import PRESETS
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.openseg.training import build
from ovs_lite.methods.proposer import WEIGHTS, load_proposer
from ovs_lite.methods.recipe import Recipe

RECIPE = Recipe(
    name="openseg-proposals",
    presets=PRESETS,
    build=build,
    save=lambda task, path, config: task.proposer.save(path),
    load=lambda path, config: load_proposer(path),
    weights=lambda config: WEIGHTS,
    example="openseg-proposals --steps 2000 --ema 0.999 --out runs/openseg-proposals",
    model=OpenSegProposer,
)
