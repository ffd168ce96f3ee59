"""Scenes per second at 128 px: rendering alone, and records on disk. python tests/benchmarks/bench_iconworld.py"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_set
from ovs_lite.iconworld.render import render
from ovs_lite.iconworld.scene import sample_scenes
from ovs_lite.iconworld.sets import icon_sets


def main(batches: int = 10) -> None:
    """Print both rates; the baseline is one scene at a time."""
    style = icon_sets("icon-caption")[0].style
    rates = {}
    for label, count in (("one at a time", 1), ("batches of 64", 64)):
        generator = torch.Generator().manual_seed(0)
        begun = time.perf_counter()
        for _ in range(batches if count > 1 else 64):
            render(sample_scenes(count, style, generator), 128, generator)
        rates[label] = (batches * count if count > 1 else 64) / (time.perf_counter() - begun)
        print(f"rendering, {label}: {rates[label]:.0f} scenes/s ({rates[label] / rates['one at a time']:.1f} x)")
    config = replace(get_profile("lite").data, train_scenes=640, val_scenes=1)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        build_set("icon-coco", config, Path(folder), progress=False)
        print(f"icon-coco written with masks and captions: {640 / (time.perf_counter() - begun):.0f} scenes/s")
    print(f"threads: {torch.get_num_threads()}")


if __name__ == "__main__":
    main()
