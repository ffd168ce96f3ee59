"""A promptable segmenter that is built in a moment, and batches of blocks on noise for it."""

import torch

from kit.processes import save
from kit.proposal_training import backward, make_batch, share
from ovs_lite import distributed
from ovs_lite.config import LoopConfig
from ovs_lite.methods.uniovseg.config import PromptConfig
from ovs_lite.methods.uniovseg.sampling import PromptBatches
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter
from ovs_lite.methods.uniovseg.training import PromptTraining

TINY = {
    "backbone": "test_convnext", "channels": 16, "layers": 2, "pixel_layers": 1, "heads": 2, "image_size": 64,
    "granularities": 3, "grid": 4, "points": 6, "boxes": 4, "num_points": 32, "loop": LoopConfig(steps=4, warmup=1),
}  # fmt: skip


def make_segmenter(seed=0, **changes):
    torch.manual_seed(seed)
    return PromptSegmenter(PromptConfig(**TINY | changes)).eval()


class Blocks:
    """index -> this process's images of noise with as many blocks as `counts` says, and their places."""

    seed = 0

    def __init__(self, *counts):
        self.counts = counts

    def __call__(self, index):
        return share(make_batch(*self.counts, seed=index))

    def places(self, index):
        return distributed.shard([(index, number, number) for number in range(len(self.counts))])


def make_training(*counts, **changes):
    """A task and its batches of 32 x 32 pixels."""
    segmenter = make_segmenter(**{"image_size": 32} | changes)
    config = segmenter.config
    batches = PromptBatches(
        Blocks(*counts), config.points, config.boxes, config.jitter, config.areas, config.most_masks
    )
    return PromptTraining(segmenter, batches)


SHARED = ((2, 0, 1, 3), (0, 3, 0, 1), (0, 0, 0, 0))  # masks of the images of a batch


def gradients(counts):
    """Averaged over processes, by parameter name."""
    task = make_training(*counts, num_points=0)
    backward(task, task.batch(0))
    distributed.average_gradients(task.model.parameters())
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


def two_processes(out):
    """What each of two processes saves: the averaged gradients of every batch."""
    save({str(counts): gradients(counts) for counts in SHARED}, out)
