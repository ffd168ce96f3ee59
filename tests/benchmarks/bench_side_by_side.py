"""Wall time of trainings at once, a thread each, against one after another with all threads (what a loop would do).

    python tests/benchmarks/bench_side_by_side.py

Four trainings of OpenSeg's proposals, 40 steps of 16 images each. Nothing else should run. The start of the other
processes counts.
"""

import os
import tempfile
import time
from pathlib import Path

import torch

from ovs_lite.config import get_profile, override
from ovs_lite.iconworld.build import build_set
from ovs_lite.methods import get_recipe
from ovs_lite.train.launch import launch
from ovs_lite.train.side_by_side import launch_each, trainings_at_once

NAME, CHANGES = "openseg-proposals", {"loop.steps": 40, "image_size": 128, "batch": 16}


def main() -> None:
    """Print both ways and their ratio."""
    print(f"{trainings_at_once()} at once, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        os.environ["OVS_DATA"] = str(out / "data")
        build_set("icon-coco", get_profile("smoke").data, out / "data", progress=False)
        base = override(get_recipe(NAME).presets["smoke"], CHANGES)
        configs = {str(seed): override(base, {"loop.seed": seed}) for seed in range(4)}
        launch(NAME, override(base, {"loop.steps": 1}), out / "first", processes=1)  # imports
        begin = time.perf_counter()
        for title, config in configs.items():
            launch(NAME, config, out / "loop" / title, processes=1)
        loop, begin = time.perf_counter() - begin, time.perf_counter()
        launch_each(NAME, configs, out / "each")
        each = time.perf_counter() - begin
        print(f"one after another {loop:.0f} s, at once {each:.0f} s, x {each / loop:.2f}")


if __name__ == "__main__":
    main()
