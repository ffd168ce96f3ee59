"""Run in each of two processes by test_distributed: process 1 alone gets SIGTERM, after step 5."""

import os
import signal
import sys

from kit.tasks import CONFIG, TinyContrast
from ovs_lite.distributed import rank
from ovs_lite.train import LoopConfig, train


def on_step(step, row):
    if step == 5 and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    train(TinyContrast(), LoopConfig(**CONFIG), sys.argv[1], on_step=on_step, progress=False)
