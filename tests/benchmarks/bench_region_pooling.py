"""Time and memory of OpenSeg's regions pooled before the head's last layer against pooling the map F_z that it makes.

    python tests/benchmarks/bench_region_pooling.py

Forward and backward of the head and the pooling, one thread: the miniature's sizes and the paper's. Every variant runs
in processes of its own (Linux: VmHWM of /proc/self/status): one for memory, one for the least CPU time of three steps.
"""

import json
import sys
import time

import torch
from peak_memory import MIB, growth, in_a_process

from ovs_lite.methods.openseg.network import OpenSegNetwork
from ovs_lite.models.fpn import EmbeddingHead
from ovs_lite.regions.pooling import mask_pool

SIZES = {"miniature": (16, 64, 128, 32), "paper": (1, 640, 640, 160)}  # B, C, D, h = w
REGIONS = 128


class HeadAlone(OpenSegNetwork):
    """F_z's head without the network below it."""

    def __init__(self, channels: int, size: int):
        torch.nn.Module.__init__(self)
        self.meaning_head = EmbeddingHead(channels, size)


def pooled_map(head: HeadAlone, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """As the paper writes it: F_z first."""
    return mask_pool(head.meaning(features, None), masks)


VARIANTS = {
    "map first": pooled_map,
    "regions first": lambda head, features, masks: head.regions(features, masks, None),
}


def measured(size: str, variant: str, what: str) -> float:
    """Seconds or bytes of one step."""
    batch, channels, embedding, side = SIZES[size]
    torch.manual_seed(0)
    head = HeadAlone(channels, embedding)
    features, masks = torch.randn(batch, channels, side, side), torch.rand(batch, REGIONS, side, side)
    features = features.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        VARIANTS[variant](head, features, masks).square().mean().backward()

    if what == "memory":
        return growth(step)
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        step()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def main() -> None:
    """Print both sizes, and the ratios."""
    for size in SIZES:
        found = {v: {w: in_a_process(__file__, size, v, w) for w in ("time", "memory")} for v in VARIANTS}
        for variant, values in found.items():
            print(f"{size}, {variant}: {1000 * values['time']:.0f} ms, {values['memory'] / MIB:.0f} MiB")
        first, second = found.values()
        print(f"{size}: time x {second['time'] / first['time']:.2f}, memory x {second['memory'] / first['memory']:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(measured(*sys.argv[1:])))
    else:
        main()
