"""How soon the explorer answers a new word. python tests/benchmarks/bench_explorer.py

One thread, CPU time, shipped weights, 480 x 640 noise. The first call makes the panel: it encodes the image, embeds the
words, scores, and prepares what the browser shows. A new word embeds one text, scores and prepares again. Models are
loaded before; words are new to the text cache. Ratios of medians, new word / first call; the bar is 0.25. An answer
has parts: `scores` is `EncodedImage.segment` alone, the rest is making JSON of it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count

import torch
from PIL import Image

import ovs_lite

METHODS = ("maskclip", "tcl", "openseg", "uniovseg", "ovseg")
BAR = 0.25


def seconds(call: Callable, *given) -> tuple[float, object]:
    start = time.process_time()
    found = call(*given)
    return time.process_time() - start, found


def measure(model, image, words, repeats: int) -> list[tuple[float, float, float]]:
    """First call, new word, scores alone, of each repeat."""
    rows = []
    for _ in range(repeats + 1):
        asked = [next(words) for _ in range(5)]
        first, panel = seconds(ovs_lite.viz.explore, model, image, ", ".join(asked[:3]))
        again, _ = seconds(setattr, panel, "words", ", ".join(asked[1:4]))
        assert not panel.error, panel.error
        alone, _ = seconds(model.encode(image).segment, asked[2:])
        rows.append((first, again, alone))
    return rows[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    noise = torch.randint(256, (480, 640, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    words = (f"word {number}" for number in count())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["OVS_CACHE"] = cache
        for name in args.methods:
            rows = measure(ovs_lite.load(name, device="cpu"), Image.fromarray(noise.numpy()), words, args.repeats)
            first, again, alone = (statistics.median(column) for column in zip(*rows, strict=True))
            ratio = again / first
            print(
                f"{name:9} first call {1000 * first:7.0f} ms, new word {1000 * again:6.0f} ms, "
                f"scores alone {1000 * alone:.0f} ms, ratio {ratio:.2f}, {'within' if ratio <= BAR else 'above'} {BAR}",
                flush=True,
            )


if __name__ == "__main__":
    main()
