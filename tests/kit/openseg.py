"""OpenSeg and LSeg+ small enough to train in a moment, batches with words for them, and what two processes find."""

from dataclasses import replace

import torch

from kit.clips import tiny_clip
from kit.processes import save
from kit.proposal_training import SMALL, make_batch
from ovs_lite import distributed
from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.methods.lseg.config import LSegConfig
from ovs_lite.methods.lseg.method import LSeg
from ovs_lite.methods.lseg.training import LSegTraining
from ovs_lite.methods.openseg.config import OpenSegConfig
from ovs_lite.methods.openseg.method import OpenSeg
from ovs_lite.methods.openseg.training import OpenSegTraining

WORDS = [["dog", "red", "grass"], [], ["cat"], ["tree", "sky"]]  # of the images of a batch
NAMES = ("dog", "cat", "tree", "sky", "grass")
OF_LSEG = {key: SMALL[key] for key in ("backbone", "channels", "image_size")}


def make_openseg(**changes):
    torch.manual_seed(0)
    return OpenSeg(tiny_clip(), OpenSegConfig(**SMALL | changes)).eval()


def make_lseg(**changes):
    torch.manual_seed(0)
    return LSeg(tiny_clip(), LSegConfig(**OF_LSEG | changes)).eval()


def openseg_task(**changes):
    method = make_openseg(**changes)
    return OpenSegTraining(method, None, method.config, {"tagger": "none"})


def lseg_task():
    method = make_lseg()
    return LSegTraining(method, method.clip.text_embeddings(list(NAMES), "bare"), None)


def word_batch(*counts, words=None, side=32):
    """Images with so many masks, and words."""
    return replace(make_batch(*counts, side=side), words=words or WORDS[: len(counts)])


def share(batch, *which):
    """This process's share of a batch, or that of process `which` = (rank, count)."""
    parts = (batch.images, batch.masks, batch.labels, batch.image_ids)
    parts, words = [distributed.shard(part, *which) for part in parts], distributed.shard(batch.words, *which)
    return MaskBatch(*parts, batch.total, words)


BATCHES = {
    "a wordless image": word_batch(2, 1, 3, 1),
    "a wordless process": word_batch(2, 1, 3, 1, words=[["dog"], [], ["cat", "red"], []]),
    "no words": word_batch(1, 1, 1, 1, words=[[], [], [], []]),
    "no masks": word_batch(0, 0, 0, 0),
}


def gradients(task, batch):
    """Of the weighted sum, averaged over processes, by parameter name."""
    found = task.losses(batch)
    task.model.zero_grad()
    sum(task.weights[name] * value for name, value in found.items()).backward()
    distributed.average_gradients(task.model.parameters())
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


def two_processes(out):
    """What each of two processes saves: averaged gradients of both tasks on every batch."""
    found = {f"openseg {name}": gradients(openseg_task(), share(batch)) for name, batch in BATCHES.items()}
    found |= {f"lseg {name}": gradients(lseg_task(), share(batch)) for name, batch in BATCHES.items()}
    found["local"] = gradients(openseg_task(sync=False, alpha=0.0), share(BATCHES["a wordless image"]))
    save(found, out)
