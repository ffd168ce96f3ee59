"""The grid, proposals and prompts counted in blocks, by one process or by two through `kit.processes.launch`."""

import json
from dataclasses import asdict

import numpy as np
import torch

from kit.clips import random_clip
from kit.processes import save
from kit.records import scene, toy, without_annotation
from kit.vocabularies import vocabulary
from ovs_lite import distributed
from ovs_lite.evaluation.grid import CLASSIFIERS, grid_counter
from ovs_lite.evaluation.promptable import KINDS, PromptCounter
from ovs_lite.evaluation.proposals import proposal_counter
from ovs_lite.evaluation.run import evaluate_in_blocks

WORLD = vocabulary("cat", "grass", "sky", "boat")
RECORDS = [toy(f"p{n}", scene(40 + 2 * n, 50 - 3 * n), {1: n % 4, 2: 1, 3: (n + 1) % 4}) for n in range(7)]


def quarters(image, budget):
    """Four soft masks, one of them nearly empty."""
    height, width = image.shape[:2]
    masks = torch.full((4, height, width), 0.3)
    masks[0, : height // 2], masks[1, height // 2 :], masks[2, :, : width // 2], masks[3, :2, :2] = 0.9, 0.8, 0.7, 0.6
    return masks[:budget]


def halves(image, points, boxes):
    """Two masks for each prompt: left or right of a point, or the upper or the lower half of a box's rows."""
    x, y = torch.arange(image.shape[1]) + 0.5, torch.arange(image.shape[0]) + 0.5
    if boxes is None:
        left = (x < points[:, :1])[:, None].expand(-1, len(y), -1)
        return torch.stack([left, ~left], 1).float(), None
    rows = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:4])
    inside = rows[..., None] & ((x >= boxes[:, :1]) & (x <= boxes[:, 2:3]))[:, None]
    return torch.stack([inside, rows[..., None].expand_as(inside)], 1).float(), None


def counters():
    """(counter, records) of each kind; of images without any annotation only where a kind takes them."""
    bare = [without_annotation("bare"), *RECORDS, without_annotation("bare too")]
    sources = {"quarters": quarters, "one": lambda image, budget: np.ones((1, *image.shape[:2]), bool)}
    grid = grid_counter(random_clip(), WORLD, sources, CLASSIFIERS, "bare")
    found = {"grid": (grid, RECORDS), "proposals": (proposal_counter(sources, WORLD, ["cat"]), bare)}
    return found | {"promptable": (PromptCounter(halves, kinds=KINDS, grid=3), bare)}


def evaluated(kind, folder=None, records=None, **how):
    counter, own = counters()[kind]
    key = "key" if folder else ""
    return evaluate_in_blocks(counter, own if records is None else records, folder=folder, key=key, block=2, **how)


def as_text(report):
    """All that a report holds, to the bit."""
    content = asdict(report) | {"cells": [[k, v] for k, v in getattr(report, "counts", {}).items()], "counts": None}
    return json.dumps(content, default=lambda array: array.tolist())


def two_processes(out):
    """Each process keeps counts in the same folder, in a second run takes all from there, and saves what it got."""
    found = {}
    for kind, (_, records) in counters().items():
        found[kind] = as_text(evaluated(kind))
        found[f"{kind} kept"] = as_text(evaluated(kind, f"{out}/counts-{kind}"))
        found[f"{kind} few"] = as_text(evaluated(kind, records=records[:2]))
    found["rank"] = distributed.rank()
    save(found, out)
