"""Time and memory of pamr against stacked neighbours. python tests/benchmarks/bench_pamr.py

One thread. Time is CPU time, the variants in turn in one process. Memory is measured in processes of its own (Linux:
VmHWM of /proc/self/status) with two iterations, in the second of which every buffer is in use. 448 px with 150 classes
is left to `pamr` alone: stacked, it would take more than 12 GB.
"""

import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from peak_memory import MIB, growth, in_a_process

from ovs_lite.pamr import DILATIONS, ITERATIONS, pamr

CASES = {(112, 21): 5, (112, 150): 2, (448, 21): 1}  # side, classes: repeats
ALONE = (448, 150)


def neighbours(planes: torch.Tensor, dilations: Sequence[int], taps: Sequence[int]) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, N, H, W): one-hot 3 x 3 kernels, dilated, over replicate-padded planes, all stacked."""
    kernels = torch.eye(9)[list(taps)].view(-1, 1, 3, 3)
    flat = planes.flatten(0, 1)[:, None]
    copies = [F.conv2d(F.pad(flat, (d, d, d, d), mode="replicate"), kernels, dilation=d) for d in dilations]
    return torch.cat(copies, 1).unflatten(0, planes.shape[:2])


@torch.no_grad()
def stacked_pamr(image: torch.Tensor, masks: torch.Tensor, dilations: Sequence[int], iterations: int) -> torch.Tensor:
    """PAMR as it is usually written: every mask N times, once per neighbour."""
    masks = F.interpolate(masks, image.shape[-2:], mode="bilinear", align_corners=True)
    others = (0, 1, 2, 3, 5, 6, 7, 8)
    spread = neighbours(image, dilations, range(9)).std(2, keepdim=True)
    difference = (neighbours(image, dilations, others) - image[:, :, None]).abs()
    weights = (-difference / (1e-8 + 0.1 * spread)).mean(1, keepdim=True).softmax(2)
    for _ in range(iterations):
        masks = (neighbours(masks, dilations, others) * weights).sum(2)
    return masks


VARIANTS: dict[str, Callable] = {"stacked": stacked_pamr, "pamr": pamr}


def inputs(side: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of colour with noise, and soft masks at the size of the picture."""
    generator = torch.Generator().manual_seed(0)
    blocks = F.interpolate(torch.randn(1, 3, 8, 8, generator=generator), (side, side))
    image = blocks + 0.1 * torch.randn(1, 3, side, side, generator=generator)
    return image, torch.rand(1, classes, side, side, generator=generator)


def peak(variant: str, side: int, classes: int) -> int:
    """Bytes that this process grows by in two iterations beyond their inputs."""
    VARIANTS[variant](*inputs(64, 2), DILATIONS, 1)  # what torch loads at first use is not the variant's
    return growth(VARIANTS[variant], *inputs(side, classes), DILATIONS, 2)


def times(side: int, classes: int, repeats: int, variants: Sequence[str]) -> tuple[dict[str, float], float]:
    """Least CPU seconds of every variant, and the largest difference from the result of the first."""
    image, masks = inputs(side, classes)
    seconds, worst = dict.fromkeys(variants, float("inf")), 0.0
    for _ in range(repeats):
        first = None
        for variant in variants:
            begun = time.process_time()
            found = VARIANTS[variant](image, masks, DILATIONS, ITERATIONS)
            seconds[variant] = min(seconds[variant], time.process_time() - begun)
            first = found if first is None else first
            worst = max(worst, (found - first).abs().max().item())
    return seconds, worst


def main() -> None:
    """Print a row per size and variant, and how many times more the stacked form needs."""
    torch.set_num_threads(1)
    print(f"{ITERATIONS} iterations, dilations {DILATIONS}, one thread; memory beyond the inputs, also in masks")
    print(f"{'':32}{'seconds':>9}{'MiB':>9}{'masks':>8}")
    for (side, classes), repeats in {**CASES, ALONE: 1}.items():
        label, variants = f"{side:4} px {classes:4} classes  ", ("pamr",) if (side, classes) == ALONE else (*VARIANTS,)
        seconds, difference = times(side, classes, repeats, variants)
        peaks = {variant: in_a_process(__file__, variant, side, classes) for variant in variants}
        for variant in variants:
            masks = peaks[variant] / (4 * classes * side**2)
            print(f"{label}{variant:10}{seconds[variant]:9.3f}{peaks[variant] / MIB:9.1f}{masks:8.2f}", flush=True)
        if len(variants) == 2:
            faster, smaller = (found["stacked"] / found["pamr"] for found in (seconds, peaks))
            print(f"{label}{'ratio':10}{faster:8.1f}x{smaller:8.1f}x   largest difference {difference:.1e}", flush=True)
            assert difference < 1e-5, difference


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
