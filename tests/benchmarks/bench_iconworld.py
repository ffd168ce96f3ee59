"""Scenes per second: rendering at 128 px, captioned batches at 64 px, records on disk.

python tests/benchmarks/bench_iconworld.py [cpu|cuda]
"""

import sys
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
from ovs_lite.iconworld.stream import CaptionStream, scene_stages


def main(device: str = "cpu", batches: int = 10) -> None:
    """Print the rates; the baseline is one scene at a time."""
    style = icon_sets("icon-caption")[0].style
    for label, count in (("one at a time", 1), ("batches of 64", 64)):
        generator = torch.Generator().manual_seed(0)
        drawing = generator if device == "cpu" else torch.Generator(device).manual_seed(0)
        render(sample_scenes(count, style, generator), 128, drawing)  # reads the sprites
        number = batches if count > 1 else 64
        begun = time.perf_counter()
        for _ in range(number):
            images = render(sample_scenes(count, style, generator), 128, drawing).images
        images.mean().item()
        print(f"rendering, {label}: {number * count / (time.perf_counter() - begun):.0f} scenes/s on {device}")
    stream = CaptionStream(512, 64, stages=scene_stages(10), device=device)
    stream(0)
    begun = time.perf_counter()
    for step in range(batches):
        stream(step)[0].mean().item()
    print(f"captioned batches at 64 px: {512 * batches / (time.perf_counter() - begun):.0f} scenes/s on {device}")
    if device == "cpu":
        config = replace(get_profile("lite").data, train_scenes=640, val_scenes=1)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            build_set("icon-coco", config, Path(folder), progress=False)
            print(f"icon-coco written with masks and captions: {640 / (time.perf_counter() - begun):.0f} scenes/s")
    print(f"threads: {torch.get_num_threads()}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
