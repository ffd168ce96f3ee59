"""What another word costs for an image that was looked at already. python tests/benchmarks/bench_new_word.py

One thread, CPU time. A first call encodes the image, embeds one word and segments; a new word does the last two alone.
The words are new to the cache of text embeddings in every call. All rows are measured in turn in one process; compare
only ratios: new word / first call, of medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from itertools import count

import torch
from PIL import Image

from ovs_lite.checkpoints import load_method
from ovs_lite.clip import Clip, load_clip
from ovs_lite.methods import get_method
from ovs_lite.methods.maskclip import MaskClip
from ovs_lite.segmenter import Segmenter


def rows(clip: Clip, shipped: bool) -> dict[str, tuple[Segmenter, dict]]:
    """Segmenters and their options by name."""
    tcl = Segmenter(load_method("tcl", clip) if shipped else get_method("tcl", clip))
    return {
        "maskclip": (Segmenter(MaskClip(clip)), {}),
        "tcl": (tcl, {"refine": False}),
        "tcl + PAMR": (tcl, {}),
    }


def seconds(call, *given, **options) -> float:
    start = time.process_time()
    call(*given, **options)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clip", default="ViT-Lite-8", help="open_clip name; others than ViT-Lite-8 have random weights"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="of the image")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shipped = args.clip == "ViT-Lite-8"
    segmenters = rows(load_clip(args.clip, "lite" if shipped else None), shipped)
    noise = torch.randint(256, (*args.size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image, words = Image.fromarray(noise.numpy()), (f"word {number}" for number in count())
    times = {name: ([], []) for name in segmenters}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["OVS_CACHE"] = cache
        for _ in range(args.repeats + 1):
            for name, (segmenter, options) in segmenters.items():
                first, again = times[name]
                first.append(seconds(segmenter.segment, image, next(words), **options))
                encoded = segmenter.encode(image)
                again.append(seconds(encoded.segment, next(words), **options))
    print(f"{args.clip}, image {args.size[0]} x {args.size[1]}, {args.repeats} repeats, one thread")
    for name, both in times.items():
        first, again = (statistics.median(values[1:]) for values in both)
        print(
            f"{name:11} first call {1000 * first:7.1f} ms, new word {1000 * again:7.1f} ms, ratio {again / first:.2f}"
        )


if __name__ == "__main__":
    main()
