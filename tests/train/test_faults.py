"""Stops at any step with two threads and in half precision, and memory over hundreds of steps and images."""

import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from kit.processes import environment
from kit.runs import Crash, assert_same_bits, crashing, last_checkpoint, rows
from kit.tasks import CONFIG, TinyTask
from ovs_lite.train import LoopConfig, train

STEPS = 12
GROWN = 50  # MiB after step 20

MEMORY = """
import resource, sys
import numpy as np, torch
from pathlib import Path

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20

seen = []
if sys.argv[1] == "train":
    from kit.tasks import CONFIG
    from kit.tasks import TinyTask
    from ovs_lite.train import LoopConfig, train
    train(TinyTask(), LoopConfig(**CONFIG | {"steps": 220}), sys.argv[2], progress=False,
          on_step=lambda step, row: seen.append(resident()))
else:
    from ovs_lite.segmenter import load
    segmenter, rng = load("maskclip"), np.random.default_rng(0)
    for _ in range(220):
        segmenter.segment(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8), "cat, grass")
        seen.append(resident())
print(len(seen), max(seen[20:]) - seen[20])
"""


class WideTask(TinyTask):
    """TinyTask with a layer and a batch that are wide enough for torch to share their work among threads."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.model.stem = nn.Sequential(nn.Linear(4, 512), nn.Dropout(0.3), nn.Linear(512, 512), nn.Linear(512, 8))

    def batch(self, index):
        return torch.randn(512, 4, generator=torch.Generator().manual_seed(index))


def run(out, task, at=None, **changes):
    return train(task, LoopConfig(**CONFIG | {"steps": STEPS} | changes), out, on_step=crashing(at), progress=False)


@pytest.mark.fault
@pytest.mark.parametrize("threads", [1, 2])
def test_ten_stops_at_random_steps_give_the_same_bits_on_one_thread_and_on_two(tmp_path, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run(tmp_path / "whole", WideTask())
        for number, at in enumerate(random.Random(0).choices(range(STEPS - 1), k=10)):
            with pytest.raises(Crash):
                run(tmp_path / f"{number}", WideTask(), at)
            run(
                tmp_path / f"{number}", WideTask(seed=0 if at < CONFIG["checkpoint_every"] else 5)
            )  # if saved, overwritten
            assert_same_bits(
                last_checkpoint(tmp_path / f"{number}").tensors, last_checkpoint(tmp_path / "whole").tensors
            )
            assert rows(tmp_path / f"{number}") == rows(tmp_path / "whole")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_another_number_of_threads_is_a_warning_by_name(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with pytest.raises(Crash):
            run(tmp_path, TinyTask(), 6)
        torch.set_num_threads(2)
        with pytest.warns(UserWarning, match="not bit-identical: threads 1 -> 2"):
            run(tmp_path, TinyTask())
    finally:
        torch.set_num_threads(before)


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a GPU")


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=ON_A_GPU)])
def test_half_precision_trains_and_resumes_with_the_same_bits(tmp_path, precision):
    torch.set_num_threads(1)
    found = run(tmp_path / "whole", TinyTask(), precision=precision, steps=8)
    with pytest.raises(Crash):
        run(tmp_path / "cut", TinyTask(), 5, precision=precision, steps=8)
    run(tmp_path / "cut", TinyTask(seed=5), precision=precision, steps=8)
    assert_same_bits(last_checkpoint(tmp_path / "cut").tensors, last_checkpoint(tmp_path / "whole").tensors)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    full = run(tmp_path / "full", TinyTask(), steps=8)
    assert found[0]["fit"] != full[0]["fit"] and found[0]["fit"] == pytest.approx(full[0]["fit"], rel=0.05)


@pytest.mark.fault
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("what", ["train", "segment"])
def test_two_hundred_steps_and_two_hundred_images_take_no_more_memory(tmp_path, what):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, what, str(tmp_path)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count, grown = done.stdout.splitlines()[-1].split()  # above them a training says what it took
    assert int(count) == 220 and float(grown) < GROWN, done.stdout
