"""Time and memory of deformable attention against grid_sample per level.

    python tests/benchmarks/bench_deformable_attention.py

One thread, CPU time, the variants in turn in one process, 8 heads of 32 channels, 4 points. Every pixel of all levels
asks. Memory is measured in processes of its own (Linux: VmHWM of /proc/self/status), forward without gradient.
"""

import sys
import time
from pathlib import Path

import torch
from peak_memory import MIB, growth, in_a_process

from ovs_lite.models.deformable_attention import deformable_attention

sys.path.insert(0, str(Path(__file__).parents[1]))
from kit.oracles.deformable import sampled_attention  # noqa: E402

CASES = {  # name: images, sizes of levels
    "64 x 64": (1, [(64, 64)]),
    "64, 32, 16": (1, [(64, 64), (32, 32), (16, 16)]),
    "8 of 16, 8, 4": (8, [(16, 16), (8, 8), (4, 4)]),
}
HEADS, SIZE, POINTS, REPEATS = 8, 32, 4, 5
VARIANTS = {"grid_sample": sampled_attention, "ours": deformable_attention}


def inputs(case: str) -> tuple:
    """Random values and weights, places that reach a little over the edges."""
    images, shapes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    pixels = sum(height * width for height, width in shapes)
    value = torch.randn(images, pixels, HEADS, SIZE, generator=generator)
    places = 1.1 * torch.rand(images, pixels, HEADS, len(shapes), POINTS, 2, generator=generator) - 0.05
    weights = torch.rand(images, pixels, HEADS, len(shapes), POINTS, generator=generator)
    return value, shapes, places, weights


def forward(variant: str, given: tuple) -> torch.Tensor:
    with torch.no_grad():
        return VARIANTS[variant](*given)


def both(variant: str, given: tuple) -> torch.Tensor:
    value, shapes, places, weights = given
    tensors = [tensor.detach().requires_grad_() for tensor in (value, places, weights)]
    found = VARIANTS[variant](tensors[0], shapes, *tensors[1:])
    found.square().sum().backward()
    return found.detach()


def seconds(call, given: tuple) -> tuple[dict[str, float], float]:
    """Least CPU seconds of every variant, and the largest difference between their results."""
    least, worst = dict.fromkeys(VARIANTS, float("inf")), 0.0
    for _ in range(REPEATS):
        results = []
        for variant in VARIANTS:
            begun = time.process_time()
            results.append(call(variant, given))
            least[variant] = min(least[variant], time.process_time() - begun)
        worst = max(worst, (results[0] - results[1]).abs().max().item())
    return least, worst


def main() -> None:
    """A row per case; a ratio above 1: ours is faster, or smaller."""
    torch.set_num_threads(1)
    print(f"{'levels':15}{'forward ms':>20}{'ratio':>7}{'with backward ms':>20}{'ratio':>7}{'MiB':>14}{'ratio':>7}")
    for case in CASES:
        cells, given = f"{case:15}", inputs(case)
        for call in (forward, both):
            least, difference = seconds(call, given)
            assert difference < 1e-3, difference
            naive, ours = (1000 * least[variant] for variant in VARIANTS)
            cells += f"{naive:10.1f}{ours:10.1f}{naive / ours:7.1f}"
        naive, ours = (in_a_process(__file__, variant, case) / MIB for variant in VARIANTS)
        print(f"{cells}{naive:7.0f}{ours:7.0f}{naive / ours:7.1f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        given = inputs(sys.argv[2])
        forward(sys.argv[1], inputs("8 of 16, 8, 4"))  # what torch loads at first use is not the variant's
        print(growth(forward, sys.argv[1], given))
    else:
        main()
