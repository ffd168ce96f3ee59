"""Where masks come from."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ovs_lite.regions.classical import proposals
from ovs_lite.regions.grouping import selective_search, slic_merges

# The classical rows of a proposal-recall table: (H, W, 3) uint8 RGB, budget -> (N <= budget, H, W) bool.
CLASSICAL: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "felzenszwalb": partial(proposals, scales=[50.0 * 2**step for step in range(7)], counts=(), sigma=0.5),
    "SLIC merges": slic_merges,
    "selective search": selective_search,
}
