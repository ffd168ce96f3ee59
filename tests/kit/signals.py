"""What each of two processes does while the second one alone gets SIGTERM, before the first step or block."""

import os
import signal
from pathlib import Path

import numpy as np

from kit.tasks import CONFIG, TinyContrast
from ovs_lite import distributed
from ovs_lite.commands.stops import ends_in_order
from ovs_lite.evaluation.blocks import CountFolder, count_in_blocks
from ovs_lite.train import LoopConfig, train


def signal_the_second() -> None:
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def one_while_the_task_is_built(out: str) -> None:
    """As `ovs-lite train` does it."""
    with distributed.Interrupts(signal.SIGTERM):
        signal_the_second()
        train(TinyContrast(), LoopConfig(**CONFIG), out, progress=False)


@ends_in_order
def one_while_a_command_loads(out: str) -> None:
    """As `ovs-lite evaluate` does it."""

    def count(records) -> dict[str, np.ndarray]:
        return {"numbers": np.array([record["number"] for record in records], np.int64)}

    signal_the_second()
    kept = CountFolder(Path(out), "key", tuple(map(str, range(8))))
    count_in_blocks(count, [{"number": number} for number in range(8)], kept, block=2)
