"""TCL's training on a handful of pairs in double precision, alone and in each of two processes."""

import torch

from kit.clips import shaken
from kit.processes import save
from kit.records import shape_pairs
from ovs_lite import distributed
from ovs_lite.clip import load_clip
from ovs_lite.data.loaders.pair_batches import PairBatch, PairBatches
from ovs_lite.methods.tcl import training
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import PairsAtStep, TclTraining
from ovs_lite.models.text_masks import mask_logits
from ovs_lite.train import LoopConfig, train

WEIGHTS = TclConfig().weights()
ALL = dict.fromkeys(WEIGHTS, 1.0)
PAIRS, BETWEEN = 4, 0.43  # of two processes; a positive prior between the mean areas of their halves of batch 1


def settings(weights=None, priors=(0.4, 0.0), **others):
    """A configuration with these weights of the terms and priors of the areas."""
    named = {f"{term}_weight": value for term, value in (weights or WEIGHTS).items()}
    return TclConfig(**named, positive_area=priors[0], negative_area=priors[1], **others)


def make_task(count=6, dtype=torch.float64, unfreeze_batch=None, **options):
    """A task whose batches hold all of `count` pairs; shaken, so that open gates let every weight matter."""
    torch.manual_seed(0)
    method = Tcl(load_clip()).to(dtype)
    shaken(method.grounder, 0.02)
    task = TclTraining(method, PairBatches(shape_pairs(count), count, 64), settings(**options))
    task.unfreeze_batch = unfreeze_batch
    return task


def threshold(logits):
    """In place of the Gumbel samples: the likelier value, with the gradient of the probability."""
    soft = logits.sigmoid()
    return (soft > 0.5) + (soft - soft.detach())


def backward(task, index=0):
    """The terms' means over processes and every averaged gradient of their weighted sum, None where there is none."""
    terms = task.losses(task.batch(index))
    task.model.zero_grad()
    sum(task.weights[name] * value for name, value in terms.items()).backward()
    distributed.average_gradients(task.model.parameters())
    means = {name: distributed.reduce_sum(value) / distributed.world_size() for name, value in terms.items()}
    return means, {name: p.grad for name, p in task.model.named_parameters()}


@torch.no_grad()
def own_area(task, batch):
    """Mean of the soft masks of each image's own text."""
    pixels = task.method.pixel_embeddings(task.clip.normalise(batch.pairs.images))
    texts = task.clip.encode_text(batch.pairs.captions)
    return float(mask_logits(pixels, texts[:, None], task.model.scale, task.model.bias).sigmoid().mean())


def descend(task, batch, steps, lr=3e-3):
    """The weighted sums of some steps of Adam on one batch, with the same noise in each."""
    optimiser, losses = torch.optim.Adam(task.model.parameters(), lr), []
    for _ in range(steps):
        torch.manual_seed(0)
        loss = sum(task.weights[name] * value for name, value in task.losses(batch).items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def halves(batch):
    """What each of two processes has of a batch."""
    pairs = batch.pairs
    for number in (0, 1):
        part = PairBatch(*(items[number::2] for items in (pairs.images, pairs.captions, pairs.image_ids)), pairs.total)
        yield PairsAtStep(part, batch.train_block)


def both_ways(out):
    """What one process or each of two finds: terms and gradients before and after unfreezing, weights of the loop."""
    task = make_task(PAIRS, weights=ALL, unfreeze_batch=1, priors=(BETWEEN, 0.0))
    found = [backward(task, index) for index in (0, 1)]
    task.model.zero_grad()
    train(task, LoopConfig(steps=2, lr=1e-3, muon_lr=0.0, warmup=0), out, progress=False)
    return found, task.model.state_dict()


def two_processes(out):
    """What each of two processes saves."""
    training.binary_gumbel = threshold
    save(both_ways(out), out)
