"""Both proposal models small enough to train in a moment, batches for them, and what two processes find."""

import itertools

import torch

from kit.processes import save
from kit.proposers import CLASSES, texts
from ovs_lite import distributed
from ovs_lite.data.loaders.mask_batches import MaskBatch
from ovs_lite.methods.maskformer.config import MaskFormerConfig
from ovs_lite.methods.maskformer.proposer import MaskFormerProposer
from ovs_lite.methods.maskformer.training import MaskFormerTraining
from ovs_lite.methods.openseg.proposal_training import BestMatchTraining
from ovs_lite.methods.openseg.proposer import OpenSegProposer
from ovs_lite.methods.proposer import ProposalConfig

TERMS = {BestMatchTraining: {"best_match_dice"}, MaskFormerTraining: {"class", "focal", "dice"}}
BATCHES = ((2, 0, 1, 3), (0, 3, 0, 1), (0, 0, 0, 0), (7, 1, 5, 2))  # masks of the images of a batch
SMALL = {"backbone": "test_convnext", "channels": 16, "queries": 4, "layers": 2, "heads": 2, "image_size": 32}


def make_task(kind, batches=None, **options):
    """A task of the kind whose model sees images as 2 x - 1."""
    torch.manual_seed(0)
    if kind is BestMatchTraining:
        proposer = OpenSegProposer(ProposalConfig(**SMALL))
    else:
        proposer = MaskFormerProposer(MaskFormerConfig(**SMALL), texts())
    proposer.mean.fill_(0.5)
    proposer.std.fill_(0.5)
    return kind(proposer, batches, **options)


def make_batch(*counts, side=32, seed=0):
    """Images of noise with a brighter block per mask, as many blocks as the counts say."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(len(counts), 3, side, side, generator=generator)
    masks, labels = [], []
    for image, count in zip(images, counts, strict=True):
        masks.append(torch.zeros(count, side, side, dtype=torch.bool))
        labels.append(torch.randint(CLASSES, (count,), generator=generator))
        for mask in masks[-1]:
            top, left = torch.randint(side - 12, (2,), generator=generator).tolist()
            mask[top : top + 12, left : left + 12] = True
            image[:, mask] += 0.6 * torch.rand(3, 1, generator=generator)
    return MaskBatch(images.clamp(max=1), masks, labels, [f"p{i}" for i in range(len(counts))], len(counts))


def one_pixel():
    batch = make_batch(2, 1)
    for mask in itertools.chain(*batch.masks):
        mask.zero_()[13, 6] = True
    return batch


def duplicates():
    batch, order = make_batch(2, 2), torch.tensor([0, 0, 0, 1])
    masks, labels = ([item[order] for item in items] for items in (batch.masks, batch.labels))
    return MaskBatch(batch.images, masks, labels, batch.image_ids, batch.total)


ODD = {
    "an image without masks": lambda: make_batch(2, 0, 3),
    "no masks at all": lambda: make_batch(0, 0),
    "masks of one pixel": one_pixel,
    "the same mask three times": duplicates,
    "more targets than queries": lambda: make_batch(7, 1),
    "one image": lambda: make_batch(2),
}


def backward(task, batch):
    """The weighted sum's gradients by parameter name, and the terms."""
    found = task.losses(batch)
    task.model.zero_grad()
    sum(task.weights[name] * value for name, value in found.items()).backward()
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}, found


def share(batch):
    """This process's share of a batch."""
    images, masks, labels, names = map(distributed.shard, (batch.images, batch.masks, batch.labels, batch.image_ids))
    return MaskBatch(images, masks, labels, names, batch.total)


def two_processes(out):
    """What each of two processes saves: the averaged gradients of both tasks on every batch."""
    found = {}
    for kind, counts in itertools.product(TERMS, BATCHES):
        task = make_task(kind)
        backward(task, share(make_batch(*counts)))
        distributed.average_gradients(task.model.parameters())
        grads = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
        found[f"{kind.__name__} {counts}"] = grads
    save(found, out)
