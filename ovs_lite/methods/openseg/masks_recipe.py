"""OpenSeg's masks alone (paper: section 3.1, Eq. 1): its teacher of section 3.3, and for other namers of regions.

Proposals have no class and no score; regions that nobody annotated cost nothing in training.
"""

from ovs_lite.methods.openseg.config import PROPOSAL_PRESETS, PROPOSAL_SOURCES
from ovs_lite.methods.openseg.proposal_training import build
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import WEIGHTS, load_proposer
from ovs_lite.methods.recipe import Recipe

RECIPE = Recipe(
    name="openseg-proposals",
    presets=PROPOSAL_PRESETS,
    sources=PROPOSAL_SOURCES,
    build=build,
    save=lambda task, path, config: task.proposer.save(path),
    load=lambda path, config: load_proposer(path),
    weights=lambda config: WEIGHTS,
    example="openseg-proposals --steps 2000 --ema 0.999 --out runs/openseg-proposals",
    model=OpenSegProposer,
)
