"""Records of random segments, a predictor that knows the image by its colour, and their evaluation in two processes."""

import numpy as np
import torch

from kit.oracles.panoptic import random_case
from kit.processes import save
from kit.records import make_record
from ovs_lite import distributed
from ovs_lite.data.vocabulary import parse_vocabulary
from ovs_lite.evaluation import PanopticQuality, evaluate_panoptic

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


def two_processes(folder):
    """Each evaluates its share; the counts are summed between them, too."""
    report = evaluate_panoptic(known, distributed.shard(RECORDS), FIVE, way="known")
    summed = PanopticQuality(FIVE)
    summed.counts += distributed.reduce_sum(torch.from_numpy(report.per_image.sum(0))).numpy()
    found = {"ids": list(report.image_ids), "counts": torch.from_numpy(report.per_image), "pq": summed.compute().all.pq}
    save(found, folder)
