"""Memory and time of best_match_dice_loss against broadcasting. python tests/benchmarks/bench_mask_loss.py

Batch 16, 128 proposals, 20 targets, one thread. Every variant runs in processes of its own, so that a peak is its own
(Linux: VmHWM of /proc/self/status). Backward holds the gradient of the proposals twice in either variant, image by
image and then stacked; the forward pass alone shows what the pairs cost.
"""

import json
import sys
import time

import torch
from peak_memory import MIB, in_a_process, resident, start_counting

from ovs_lite.losses.masks import best_match_dice_loss

BATCH, PROPOSALS, TARGETS = 16, 128, 20
SIDES = (32, 128)


def broadcast_best_match(mask_probs: torch.Tensor, target_masks: list[torch.Tensor]) -> torch.Tensor:
    """The same loss as it is written down first: every pixel of every pair, (N, M, H, W) per image."""
    losses = []
    for probs, targets in zip(mask_probs, target_masks, strict=True):
        overlap = (probs[:, None] * targets).sum((2, 3))
        sizes = (probs[:, None] + targets).sum((2, 3))
        losses.append(1 - (2 * overlap / sizes).max(0).values.mean())
    return torch.stack(losses).mean()


VARIANTS = {"broadcast": broadcast_best_match, "best_match_dice_loss": best_match_dice_loss}


def inputs(side: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Random soft proposals and rectangles as targets."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(BATCH, PROPOSALS, side, side, generator=generator)
    low, high = torch.rand(2, BATCH, TARGETS, 2, generator=generator).sort(0).values
    line = (torch.arange(side) + 0.5) / side
    rows, columns = ((low[..., i, None] <= line) & (line <= high[..., i, None]) for i in (0, 1))
    return probs.requires_grad_(), list((rows[..., None] & columns[..., None, :]).float())


def measure(variant: str, side: int, repeats: int = 5) -> dict[str, float]:
    """Peak growth in bytes of the first pass, the least seconds of `repeats` more, and the loss."""
    loss = VARIANTS[variant]
    small = torch.rand(1, 2, 8, 8, requires_grad=True)
    loss(small, [torch.ones(1, 8, 8)]).backward()  # what torch loads at first use is not the loss's
    probs, targets = inputs(side)
    before, seconds = start_counting(), []
    value = loss(probs, targets)
    forward = resident("VmHWM") - before
    value.backward()
    peak = resident("VmHWM") - before
    for _ in range(repeats):
        probs.grad = None
        begun = time.perf_counter()
        loss(probs, targets).backward()
        seconds.append(time.perf_counter() - begun)
    return {"forward": forward, "peak": peak, "seconds": min(seconds), "loss": value.item()}


def memory_and_time(variant: str, side: int) -> dict[str, float]:
    """Memory from one process, time from another, whose allocator is left as it is."""
    memory, timed = (in_a_process(__file__, variant, side, give_back=given) for given in (True, False))
    return {**memory, "seconds": timed["seconds"]}


def main() -> None:
    """Print a row per size and variant, and how many times more the broadcast needs."""
    print(f"batch {BATCH}, {PROPOSALS} proposals, {TARGETS} targets, one thread; MiB beyond the inputs")
    print(f"{'':30}{'forward':>9}{'+ backward':>12}{'seconds':>10}{'loss':>11}")
    for side in SIDES:
        found = {variant: memory_and_time(variant, side) for variant in VARIANTS}
        for variant, row in found.items():
            memory = f"{row['forward'] / MIB:9.1f}{row['peak'] / MIB:12.1f}"
            print(f"{side:4} px  {variant:22}{memory}{row['seconds']:10.3f}{row['loss']:11.6f}")
        naive, product = (found[variant] for variant in VARIANTS)
        assert abs(naive["loss"] - product["loss"]) < 1e-5, found
        times = [naive[key] / product[key] for key in ("forward", "peak", "seconds")]
        print(f"{side:4} px  {'ratio':22}{times[0]:8.1f}x{times[1]:11.1f}x{times[2]:9.1f}x")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
