"""TCL's training on a handful of pairs in double precision, alone and in each of two processes."""

import io
import tarfile

import numpy as np
import torch
from PIL import Image

from kit.processes import save
from ovs_lite import distributed
from ovs_lite.clip import load_clip
from ovs_lite.data.loaders.pair_batches import PairBatch, PairBatches
from ovs_lite.methods.tcl import training
from ovs_lite.methods.tcl.config import TclConfig
from ovs_lite.methods.tcl.method import Tcl
from ovs_lite.methods.tcl.training import PairsAtStep, TclTraining
from ovs_lite.models.text_masks import mask_logits
from ovs_lite.train import LoopConfig, train

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230), "yellow": (230, 220, 40)}
SHAPES = {"block": (36, 36), "bar": (14, 60)}
WEIGHTS = TclConfig().weights()
ALL = dict.fromkeys(WEIGHTS, 1.0)
PAIRS, BETWEEN = 4, 0.13  # of two processes; a positive prior between the mean areas of their halves of batch 1


def pairs(count, side=64):
    """Pictures of dark noise with a block or a bar of one colour, and a caption that says which: eight differ."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        colour, shape = list(COLOURS)[number % 4], list(SHAPES)[number // 4 % 2]
        image = rng.integers(0, 90, (side, side, 3)).astype(np.uint8)
        height, width = SHAPES[shape]
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        image[top : top + height, left : left + width] = COLOURS[colour]
        record = {"image_id": f"p{number}", "image": image, "segments": None, "segments_info": None}
        found.append(record | {"captions": [f"a {colour} {shape}"]})
    return found


def write_shard(path, count):
    """A webdataset shard of pairs, and one sample without a text."""
    with tarfile.open(path, "w") as archive:
        for number, record in enumerate(pairs(count)):
            picture = io.BytesIO()
            Image.fromarray(record["image"]).save(picture, "PNG")
            parts = {"png": picture.getvalue(), "txt": record["captions"][0].encode()}
            for kind in list(parts)[: 1 if number == 2 else 2]:
                info = tarfile.TarInfo(f"{number:09d}.{kind}")
                info.size = len(parts[kind])
                archive.addfile(info, io.BytesIO(parts[kind]))
    return path


def settings(weights=None, priors=(0.4, 0.0), **others):
    """A configuration with these weights of the terms and priors of the areas."""
    named = {f"{term}_weight": value for term, value in (weights or WEIGHTS).items()}
    return TclConfig(**named, positive_area=priors[0], negative_area=priors[1], **others)


def make_task(count=6, dtype=torch.float64, unfreeze_batch=None, chunk=None, **options):
    """A task whose batches hold all of `count` pairs; shaken, so that open gates let every weight matter."""
    torch.manual_seed(0)
    method, generator = Tcl(load_clip()).to(dtype), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in method.grounder.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.add_((0.5 if name.endswith("gate") else 0.02) * noise)
    task = TclTraining(method, PairBatches(pairs(count), count, 64), settings(**options), chunk)
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
    """Mean of the soft masks of each picture's own text."""
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
