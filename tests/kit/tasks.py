"""A task of a few hundred weights with everything that makes resuming hard, and a command that trains it in a process.

Dropout, Gumbel noise, BatchNorm's running statistics, a matrix and a 1x1 convolution for Muon, a scalar, tied weights,
and a parameter that never gets a gradient. Used by the tests of the training loop, alone and in two processes.
"""

import argparse
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.distributed import gather_with_gradient, shard, world_size
from ovs_lite.losses.contrastive import info_nce
from ovs_lite.train import LoopConfig, train

CONFIG = dict(steps=12, lr=1e-2, muon_lr=0.02, warmup=3, checkpoint_every=4, log_every=1)


class TinyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Conv2d(8, 8, 1)])
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(8, 3)
        self.tied = self.head.weight
        self.scale, self.unused = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.ones(2, 2))

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.dropout(self.blocks[0](x)).relu()
        x = self.blocks[1](x[:, :, None, None])[:, :, 0, 0]
        return self.head(x) * self.scale


class TinyTask:
    """Regression with noise. bad_step: the index whose batch is NaN. process_noise: also draw from random and numpy."""

    weights = {"fit": 1.0, "noise": 0.1}

    def __init__(self, bad_step=None, seed=0):
        torch.manual_seed(seed)
        self.model, self.bad_step, self.found = TinyModel(), bad_step, {}
        self.whole = self.model

    def to(self, device):
        self.model.to(device)

    def batch(self, index):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(index))
        return x * float("nan") if index == self.bad_step else x

    def count(self, batch):
        return len(batch)

    def image_ids(self, batch):
        return [f"row {number}" for number in range(len(batch))]

    def losses(self, batch):
        logits = self.model(batch)
        gumbel = F.gumbel_softmax(logits, tau=1.0) * (random.random() + np.random.rand())
        return {"fit": (logits - batch[:, :3]).square().mean(), "noise": (gumbel * logits).mean()}


class TinyContrast:
    """Two linear towers pulled together over the batches of all processes: 2 x 8 must be 1 x 16."""

    weights = {"contrastive": 1.0}

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"a": nn.Linear(4, 8), "b": nn.Linear(4, 8), "absent": nn.Linear(1, 1)}).double()
        self.found, self.whole = {}, self.model
        self.model.register_parameter("logit_scale", nn.Parameter(torch.tensor(1.0, dtype=torch.float64)))

    def to(self, device):
        self.model.to(device)

    def batch(self, index):
        return shard(torch.randn(16, 4, generator=torch.Generator().manual_seed(index), dtype=torch.float64))

    def count(self, batch):
        return len(batch) * world_size()

    def image_ids(self, batch):
        return [str(number) for number in range(len(batch))]

    def losses(self, batch):
        towers = (gather_with_gradient(F.normalize(self.model[name](batch), dim=-1)) for name in ("a", "b"))
        first, second = towers
        return {"contrastive": info_nce(first @ second.T, self.model.logit_scale)}


def main(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--signal", type=int, default=signal.SIGKILL)
    parser.add_argument("--at", type=int, help="step after which the process sends itself the signal")
    args = parser.parse_args(words)

    def on_step(step, row):
        if step == args.at:
            os.kill(os.getpid(), args.signal)

    torch.set_num_threads(1)
    train(TinyTask(), LoopConfig(**CONFIG), args.out, on_step=on_step, progress=False)
