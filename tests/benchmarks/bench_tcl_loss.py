"""Time and memory of TCL's dense losses against all masks held at once. python tests/benchmarks/bench_tcl_loss.py

Feature, area and mask-smoothness terms, forward and backward, one thread. Times are CPU seconds of the two variants in
turn, in one process. Memory is what a fresh process grows by (Linux: VmHWM of /proc/self/status), the gradient of the
pixels included. The naive variant makes no Gumbel draw, which the released code makes for all masks. --all: more sizes.
"""

import sys
import time

import torch
import torch.nn.functional as F
from peak_memory import MIB, growth, in_a_process

from ovs_lite.losses.tcl import area_loss, text_grounding_terms, tv_loss

SIZES = [(16, 64, 28), (64, 64, 28), (256, 64, 28), (64, 128, 56), (16, 512, 56), (64, 512, 56)]  # B = T, C, H = W
MORE_SIZES = [(128, 64, 28), (128, 128, 56), (512, 64, 28)]
TEXTS = (64, 256, 1024)  # at 64 images, C = 64, 28 x 28


def naive_tv(x: torch.Tensor) -> torch.Tensor:
    """Both differences as tensors, kept for backward."""
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


def naive_terms(pixels, texts, scale, bias, positives) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity, and area plus smoothness, as the released code writes them: einsum over (B, T, H, W)."""
    cosines = torch.einsum("bchw,tc->bthw", F.normalize(pixels, dim=1, eps=1e-6), texts)
    masks = torch.sigmoid(cosines * scale + bias)
    shares = masks / (masks.sum((2, 3), keepdim=True) + 1e-6)
    pooled = torch.einsum("bchw,bthw->btc", pixels, shares)
    similarity = torch.einsum("btc,tc->bt", F.normalize(pooled, dim=2, eps=1e-6), texts)
    own = F.one_hot(positives, len(texts)).bool()
    area = (masks[own].mean() - 0.4).abs() + masks[~own].mean().abs()
    return similarity, 0.4 * area + naive_tv(masks)


def walked_terms(pixels, texts, scale, bias, positives) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of the package."""
    terms = text_grounding_terms(pixels, texts, scale, bias, positives)
    return terms.similarity, 0.4 * area_loss(terms.positive_areas, terms.negative_areas) + terms.mask_tv


VARIANTS = {"naive": naive_terms, "walked": walked_terms}


def inputs(images: int, texts: int, channels: int, side: int) -> list[torch.Tensor]:
    """Random pixels and texts, TCL's initial scale and bias; each wants a gradient. Then the positives."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, channels, side, side, generator=generator)
    words = F.normalize(torch.randn(texts, channels, generator=generator), dim=1)
    leaves = [leaf.requires_grad_() for leaf in (pixels, words, torch.tensor(10.0), torch.tensor(-2.5))]
    return [*leaves, torch.arange(images)]


def step(variant: str, leaves: list[torch.Tensor]) -> float:
    """One forward and backward; the loss."""
    for leaf in leaves[:4]:
        leaf.grad = None
    similarity, rest = VARIANTS[variant](*leaves)
    loss = 0.1 * F.cross_entropy(similarity / 0.07, leaves[4]) + rest
    loss.backward()
    return loss.item()


def seconds(function, *given) -> float:
    begun = time.process_time()
    function(*given)
    return time.process_time() - begun


def times(size: tuple[int, int, int], repeats: int = 3) -> dict[str, float]:
    """The least CPU seconds of each variant, measured in turn, after one round that also compares the losses."""
    leaves = inputs(size[0], *size)
    losses = {variant: step(variant, leaves) for variant in VARIANTS}
    assert abs(losses["naive"] - losses["walked"]) < 1e-5 * abs(losses["naive"]), losses
    rounds = [{variant: seconds(step, variant, leaves) for variant in VARIANTS} for _ in range(repeats)]
    return {variant: min(round_[variant] for round_ in rounds) for variant in VARIANTS}


def peak(variant: str, images: int, texts: int, channels: int, side: int) -> int:
    """Bytes that this process grows by in one step beyond its inputs."""
    step(variant, inputs(2, 2, 4, 4))  # what torch loads at first use is not the loss's
    return growth(step, variant, inputs(images, texts, channels, side))


def peak_mib(variant: str, *size: int) -> float:
    """`peak` in a process of its own."""
    return in_a_process(__file__, variant, *size) / MIB


def main(sizes: list[tuple[int, int, int]]) -> None:
    """Print a row per size, and the ratios that matter."""
    torch.set_num_threads(1)
    print(
        f"{'B = T, C, H':>16}{'CPU s: naive':>14}{'walked':>9}{'ratio':>7}{'MiB: naive':>13}{'walked':>9}{'ratio':>7}"
    )
    peaks = {}
    for size in sizes:
        spent = times(size)
        peaks[size] = {variant: peak_mib(variant, size[0], *size) for variant in VARIANTS}
        cells = (f"{spent['naive']:14.3f}{spent['walked']:9.3f}{spent['walked'] / spent['naive']:7.2f}",
                 f"{peaks[size]['naive']:13.1f}{peaks[size]['walked']:9.1f}"
                 f"{peaks[size]['walked'] / peaks[size]['naive']:7.2f}")  # fmt: skip
        print(f"{str(size):>16}{''.join(cells)}", flush=True)
    grown = [peaks[256, 64, 28][variant] / peaks[64, 64, 28][variant] for variant in VARIANTS]
    print(f"peak from B = T = 64 to 256: naive x {grown[0]:.2f}, walked x {grown[1]:.2f}")
    by_texts = {texts: peak_mib("walked", 64, texts, 64, 28) for texts in TEXTS}
    print(f"walked, B = 64, peak by T: {', '.join(f'{texts}: {mib:.1f} MiB' for texts, mib in by_texts.items())}, "
          f"x {by_texts[TEXTS[-1]] / by_texts[TEXTS[0]]:.2f}")  # fmt: skip
    embedding = inputs(64, 1, 128, 56)[0]
    spent = [
        min(seconds(lambda loss=loss: loss(embedding).backward()) for _ in range(3)) for loss in (naive_tv, tv_loss)
    ]
    print(f"tv_loss of 64 x 128 x 56 x 56: naive {spent[0]:.3f} s, ours {spent[1]:.3f} s, {spent[1] / spent[0]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(peak(sys.argv[1], *map(int, sys.argv[2:])))
    else:
        main(SIZES + MORE_SIZES * ("--all" in sys.argv))
