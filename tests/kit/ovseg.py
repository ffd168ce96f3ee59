"""OVSeg small enough to run in a moment, mined pairs for it, and what two processes find."""

import numpy as np
import torch

from kit.clips import random_texts, tiny_clip
from kit.processes import save
from kit.proposers import TINY
from kit.records import scene, toy
from ovs_lite import distributed
from ovs_lite.clip.mask_prompt import MaskPromptedClip
from ovs_lite.config import override
from ovs_lite.data.loaders.region_batches import RegionBatch, RegionBatches
from ovs_lite.data.rle import encode_rle
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.ovseg.adaptation import Adaptation
from ovs_lite.methods.ovseg.config import PRESETS, REPEATED
from ovs_lite.methods.ovseg.method import OVSeg

WORDS = ["cat", "dog", "grass", "tree"]


def make_ovseg(depth=2, seed=0, **changes):
    clip = tiny_clip(seed)
    torch.manual_seed(seed + 1)
    segmenter = MaskFormerProposer(MaskFormerConfig(**TINY), random_texts(5, clip.embed_dim, seed=9))
    config = override(PRESETS["lite"], {"depth": depth, "loop.steps": 3} | changes)
    return OVSeg(clip, segmenter, MaskPromptedClip(clip, depth, last=config.last), config).eval()


def pair(number, word, height=20, width=24):
    """A record as `ovs-lite mine` writes it: a crop, all of which but a corner is the region, and its word."""
    mask = np.ones((height, width), bool)
    mask[height // 2 - number % 3 :, width // 2 :] = False
    record = toy(f"p{number:03d}", scene(height, width)) | {"captions": [word], "segments": None}
    record["image"] = np.roll(np.asarray(record["image"]), number, 1)
    origin = {"source": "s", "caption": word, "box": [0, 0, width, height], "mask": 0, "score": 0.5}
    return record | {"segments_info": None, "masks": [encode_rle(mask)], "pair": origin}


def pairs(count=7):
    return [pair(number, WORDS[number % len(WORDS)]) for number in range(count)]


def make_task(method=None, count=7, batch=4, **changes):
    method = method or make_ovseg(**changes)
    fill = tuple(method.prompted.mean.flatten().tolist())
    batches = RegionBatches(pairs(count), batch, method.prompted.image_size, fill, area=0.9, margin=0.5)
    return Adaptation(method, batches, WORDS, method.config)


def gradients(task):
    """Of the contrast of the first batch, averaged over processes, by parameter name."""
    task.losses(task.batch(0))["contrast"].backward()
    distributed.average_gradients(task.model.parameters())
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


def region_batch(words, side=16, seed=0):
    images = torch.rand(len(words), 3, side, side, generator=torch.Generator().manual_seed(seed))
    masks = torch.zeros(len(words), side, side, dtype=torch.bool)
    masks[:, :9, :7] = True
    return RegionBatch(images * masks[:, None], masks, list(words), [f"r{i}" for i in range(len(words))], len(words))


def two_processes(out):
    """What each of two processes saves: averaged gradients, for every way to treat repeated words."""
    found = {kind: gradients(make_task(tune="both", repeated=kind, batch=6)) for kind in REPEATED}
    save(found, out)
