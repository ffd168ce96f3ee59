"""OpenSeg's masks alone (paper: section 3.1, Eq. 1): its teacher of section 3.3, and for other namers of regions.

Proposals have no class and no score; regions that nobody annotated cost nothing in training.
"""

from ovs_lite.methods.openseg.config import PROPOSAL_PRESETS, PROPOSAL_SOURCES
from ovs_lite.methods.openseg.proposal_training import build
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import proposer_recipe

RECIPE = proposer_recipe(
    name="openseg-proposals",
    presets=PROPOSAL_PRESETS,
    sources=PROPOSAL_SOURCES,
    build=build,
    example="openseg-proposals --steps 2000 --ema 0.999 --out runs/openseg-proposals",
    model=OpenSegProposer,
)
