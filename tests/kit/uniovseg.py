"""Uni-OVSeg's alignment small enough to train in a moment, its batches, and what two processes find."""

import numpy as np
import torch

from kit.clips import shaken, tiny_clip
from kit.processes import save
from kit.prompting import make_segmenter
from kit.records import scene, toy
from ovs_lite import distributed
from ovs_lite.data.segments import record_masks
from ovs_lite.methods.uniovseg.alignment_config import AlignmentConfig
from ovs_lite.methods.uniovseg.alignment_data import EntityBatch
from ovs_lite.methods.uniovseg.alignment_training import AlignmentTraining
from ovs_lite.methods.uniovseg.method import UniOVSeg

PROMPTED = {"image_size": 32, "grid": 3, "duplicate": 0.95, "contained": 1.1}  # so that many masks remain
SMALL = {"short_sides": (32, 48), "rank": 3, "threshold": -1.0, "masks": "own", "templates": "bare", "mode": "value"}
ENTITIES = [("dog", "red car"), (), ("cat",), ("tree", "sky", "dog", "boat")]  # of the images of a batch
BATCHES = {
    "a wordless image": ENTITIES,
    "a wordless process": [("dog",), (), ("cat", "red car"), ()],
    "no words": [(), (), (), ()],
}


def records():
    """Four images of other shapes, with three masks each."""
    return [toy(f"r{i}", scene(32 + 8 * i, 40)) for i in range(4)]


def own_masks(record, image):
    """Its segments."""
    return torch.from_numpy(record_masks(record)[0])


def make_uniovseg(moved=True, **changes):
    """A method on a tiny CLIP, whose adapter is away from its start, or at it."""
    segmenter = make_segmenter(**PROMPTED)
    shaken(segmenter.network)
    torch.manual_seed(0)
    method = UniOVSeg(tiny_clip(), segmenter, AlignmentConfig(**SMALL | changes)).eval()
    if moved:
        shaken(method.aligned.adapter, 0.3)
    return method


def alignment_task(masks=own_masks, moved=True, **changes):
    """A task on these records."""
    return AlignmentTraining(make_uniovseg(moved, **changes), None, records(), masks, {"parser": "none"})


def entity_batch(entities=ENTITIES):
    """The four images with these entities, this process's share."""
    numbers = distributed.shard(list(range(len(entities))))
    return EntityBatch(numbers, [entities[n] for n in numbers], [f"r{n}" for n in numbers], len(entities))


def gradients(task, batch):
    """Of the loss, averaged over processes, by parameter name; and the loss."""
    loss = task.losses(batch)["alignment"]
    task.model.zero_grad()
    loss.backward()
    distributed.average_gradients(task.model.parameters())
    return {name: p.grad for name, p in task.model.named_parameters()} | {"loss": loss.detach()}


def two_processes(out):
    """What each of two processes saves: averaged gradients of both losses on every batch."""
    found = {}
    for loss in ("cosine", "contrast"):
        for name, entities in BATCHES.items():
            found[f"{loss} {name}"] = gradients(alignment_task(loss=loss), entity_batch(entities))
    save(found, out)


def pixels_of(record):
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(record["image"])).permute(2, 0, 1)[None] / 255
