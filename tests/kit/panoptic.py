"""Records of random segments, and a predictor that knows an image by its colour."""

import numpy as np

from kit.oracles.panoptic import random_case
from kit.records import make_record
from ovs_lite.data.vocabulary import parse_vocabulary

IS_THING = [True, False, True, True, False]
CLASSES = [{"id": i, "name": f"c{i}", "synonyms": [], "is_thing": thing} for i, thing in enumerate(IS_THING)]
FIVE = parse_vocabulary(
    {"name": "five", "source": "test", "count": 5, "ignore_index": 255, "background": None, "classes": CLASSES}
)
CASES = [random_case(seed) for seed in range(40)]
RECORDS = [
    make_record(f"p{n}", np.full((*target.shape, 3), n, np.uint8), target, infos)
    for n, (_, _, target, infos) in enumerate(CASES)
]


def known(image):
    """What `random_case` predicts for the image."""
    return CASES[image[0, 0, 0]][:2]
