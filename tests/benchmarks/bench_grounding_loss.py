"""Time and memory of OpenSeg's grounding loss against all cosines held at once.

    python tests/benchmarks/bench_grounding_loss.py

Forward and backward, one thread, B images of 64 regions with captions of 3 to 8 words, 128 dimensions. Every variant
runs in processes of its own (Linux: VmHWM of /proc/self/status): one for memory, one for the least CPU seconds of three
steps. The naive variant is left out where its cosines alone need more than 1 GiB.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from peak_memory import MIB, growth, in_a_process

from ovs_lite.losses.grounding import grounding_loss

BATCHES = (64, 256, 1024)
REGIONS, WORDS, SIZE, MOST = 64, 8, 128, 2**30


def naive_grounding_loss(z, w, valid, tau) -> torch.Tensor:
    """The loss as it is written down first: einsum over (images, captions, regions, words)."""
    cosines = torch.einsum("and,bkd->abnk", F.normalize(z, dim=2), F.normalize(w, dim=2))
    by_word = ((cosines / tau).softmax(2) * cosines).sum(2)
    logits = (by_word * valid).sum(2) / valid.sum(1) / tau
    positives = torch.arange(len(z))
    return F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)


VARIANTS = {"naive": naive_grounding_loss, "in blocks": grounding_loss}


def inputs(batch: int) -> list[torch.Tensor]:
    """Random regions and words, how many words count, and the temperature."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, REGIONS, SIZE, generator=generator)
    w = torch.randn(batch, WORDS, SIZE, generator=generator)
    counts = torch.randint(3, WORDS + 1, (batch, 1), generator=generator)
    return [z.requires_grad_(), w.requires_grad_(), torch.arange(WORDS) < counts, torch.tensor(0.1).requires_grad_()]


def step(variant: str, given: list[torch.Tensor]) -> float:
    loss = VARIANTS[variant](*given)
    loss.backward()
    return loss.item()


def measure(variant: str, batch: int) -> dict[str, float]:
    """Bytes by which this process grows in one step beyond its inputs, CPU seconds, the loss."""
    step(variant, inputs(2))  # what torch loads at first use is not the loss's
    given = inputs(batch)
    grown, spent = growth(step, variant, given), []
    for _ in range(3):
        begun = time.process_time()
        loss = step(variant, given)
        spent.append(time.process_time() - begun)
    return {"bytes": grown, "seconds": min(spent), "loss": loss}


def main() -> None:
    """A row per batch, and the ratios that matter."""
    print(f"{'B':>5}{'MiB: naive':>12}{'in blocks':>11}{'ratio':>7}{'CPU s: naive':>14}{'in blocks':>11}{'ratio':>7}")
    for batch in BATCHES:
        fits = 4 * batch**2 * REGIONS * WORDS <= MOST
        found = {}
        for variant in VARIANTS if fits else ("in blocks",):
            memory, timed = (in_a_process(__file__, variant, batch, give_back=given) for given in (True, False))
            found[variant] = {**timed, "bytes": memory["bytes"] / MIB}
        ours, naive = found["in blocks"], found.get("naive")
        assert naive is None or abs(naive["loss"] - ours["loss"]) < 1e-4, found
        cells = f"{batch:5}"
        for key, width, digits in (("bytes", 12, 1), ("seconds", 14, 2)):
            first = f"{naive[key]:{width}.{digits}f}" if naive else f"{'-':>{width}}"
            ratio = f"{naive[key] / ours[key]:7.1f}" if naive else f"{'-':>7}"
            cells += f"{first}{ours[key]:11.{digits}f}{ratio}"
        print(cells, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        torch.set_num_threads(1)
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
