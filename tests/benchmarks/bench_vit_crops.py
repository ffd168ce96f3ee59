"""Crops per second of a ViT at its own size, in ways to run the same forward pass, as ratios to plain open_clip.

python tests/benchmarks/bench_vit_crops.py [MODEL]
"""

import sys
import time
from collections.abc import Callable

import torch

from ovs_lite.clip import load_clip

CROPS, ROUNDS = 512, 5


def in_chunks(forward: Callable, crops: torch.Tensor, chunk: int) -> torch.Tensor:
    return torch.cat([forward(part) for part in crops.split(chunk)])


def bf16(forward: Callable) -> Callable:
    def run(crops: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(crops).float()

    return run


def main(name: str = "ViT-Lite-8") -> None:
    """Print a line per way; the ways take turns, and the best of the rounds counts."""
    clip = load_clip(name)
    plain = clip.network.encode_image
    crops = torch.randn(CROPS, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(0))
    last = crops.to(memory_format=torch.channels_last)
    ways = {
        "plain open_clip, all at once": lambda: plain(crops),
        "the kit's encode_image": lambda: clip.encode_image(crops),
        "chunks of 16": lambda: in_chunks(plain, crops, 16),
        "chunks of 64": lambda: in_chunks(plain, crops, 64),
        "channels last": lambda: plain(last),
        "bf16": lambda: bf16(plain)(crops),
        "bf16, chunks of 64": lambda: in_chunks(bf16(plain), crops, 64),
    }
    best = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for way, run in ways.items():
                begun = time.perf_counter()
                run()
                best[way] = min(best[way], time.perf_counter() - begun)
    baseline = best["plain open_clip, all at once"]
    for way, seconds in best.items():
        print(f"{way:30s} {CROPS / seconds:7.0f} crops/s   {baseline / seconds:.2f} x")
    print(f"threads: {torch.get_num_threads()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
