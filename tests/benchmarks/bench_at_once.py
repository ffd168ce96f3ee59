"""Wall time of evaluations at once, a thread of torch each, against one after another with all threads.

    python tests/benchmarks/bench_at_once.py

Four ablations of OpenSeg on 60 new scenes of icon-context59, three times in turns. Nothing else should run.
"""

import time

import torch

from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods.ablations import load_ablation
from ovs_lite.notebook.threads import each

TITLES, SCENES, TURNS = ("OpenSeg", "all words", "with captions", "masks shown"), 60, 3


def main() -> None:
    """Print both ways and their ratio."""
    scenes = list(iter_records(icon_sets("icon-context59")[-1], SCENES, 128, seed=9))
    world, methods = load_vocabulary("icon-context59"), {title: load_ablation("openseg", title) for title in TITLES}

    def scored(title: str) -> float:
        return evaluate_segmentation(methods[title], scenes, world).scores.miou

    first, loops, threads = {title: scored(title) for title in TITLES}, [], []
    for _ in range(TURNS):
        begin = time.perf_counter()
        looped = {title: scored(title) for title in TITLES}
        loops.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        assert dict(each(scored, TITLES)).keys() == looped.keys() == first.keys()
        threads.append(time.perf_counter() - begin)
    loop, thread = min(loops), min(threads)
    print(f"{torch.get_num_threads()} threads: one after another {loop:.1f} s, at once {thread:.1f} s", end=", ")
    print(f"x {thread / loop:.2f}")


if __name__ == "__main__":
    main()
