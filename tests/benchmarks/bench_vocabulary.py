"""What a large vocabulary costs: memory of 847 classes against 20, time of 150 words against one.

python tests/benchmarks/bench_vocabulary.py
python tests/benchmarks/bench_vocabulary.py --clip ViT-B-16 --side 448 --repeats 3

Shipped methods on scenes of IconWorld, one thread; with --clip, untrained ones on a CLIP of the papers' size, time
alone. Memory (Linux: VmHWM of /proc/self/status), each case in a process of its own: the whole process at the peak of
evaluate_segmentation, and what that took beyond the loaded method. Pictures, labels and method are the same; only the
names asked for are 20 or 847, embedded before counting starts. Time: CPU seconds of segmenting an image with one word
and with 150 that were embedded in an earlier call, and of the words alone where the image was looked at already
(`Segmenter.encode`), without reading the result's logits and with; medians, in turn in one process. Compare only
ratios. Of a miniature CLIP that looks at 128 px, scenes of 448 px are beyond the bar: each word's map is enlarged to
the image, and that takes longer than the CLIP itself.
"""

import argparse
import statistics
import time

import torch
from peak_memory import MIB, growth, in_a_process, resident

import ovs_lite
from ovs_lite.clip import load_clip
from ovs_lite.data.images import read_image
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.iconworld.build import iter_records
from ovs_lite.iconworld.sets import icon_sets
from ovs_lite.methods import get_method
from ovs_lite.segmenter import Segmenter

METHODS = ("maskclip", "tcl", "openseg")
OPTIONS = {"tcl": ({}, {"refine": False})}  # PAMR refines every class's mask, so that its time grows with their number
SMALL, LARGE = "icon-voc20", "icon-ade847"
MEMORY_BAR, TIME_BAR = 1.3, 1.5


def scenes(count: int, side: int) -> list[dict]:
    """Records of icon-voc20, whose class ids every vocabulary here has."""
    return list(iter_records(icon_sets(SMALL)[0], count, side, 0))


def evaluated(name: str, vocabulary: str, count: int, side: int) -> list[int]:
    """Bytes of this process at its peak, and how many of them the evaluation took."""
    method, asked, records = ovs_lite.load(name).method, load_vocabulary(vocabulary), scenes(count, side)
    evaluate_segmentation(method, records[:1], asked)
    taken = growth(evaluate_segmentation, method, records, asked)
    return [resident("VmHWM"), taken]


def print_memory(name: str, count: int, side: int) -> None:
    """A row of one method."""
    (small, small_taken), (large, large_taken) = (
        in_a_process(__file__, "--case", name, vocabulary, count, side) for vocabulary in (SMALL, LARGE)
    )
    whole, beyond = (
        f"{small / MIB:.0f} and {large / MIB:.0f} MiB",
        f"{small_taken / MIB:.0f} and {large_taken / MIB:.0f}",
    )
    print(
        f"{name:9} 20 and 847 classes, scenes of {side} px: {whole}, ratio {large / small:.2f} (bar {MEMORY_BAR}); "
        f"beyond the method {beyond} MiB, ratio {large_taken / small_taken:.2f}"
    )


def seconds(call, *given, **options) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call(*given, **options)
    return time.process_time() - start


def read_logits(encoded, asked: list[str], **options) -> None:
    """An answer whose scores are wanted too; of many words they are made at their first reading."""
    assert encoded.segment(asked, **options).logits.shape[0] == len(asked)


def segmenter_of(name: str, clip: str | None) -> Segmenter:
    """The shipped method, or one that nothing trained on a CLIP that nothing trained either."""
    return Segmenter(get_method(name, load_clip(clip, "random")).eval()) if clip else ovs_lite.load(name)


def print_time(name: str, clip: str | None, side: int, repeats: int, **options) -> None:
    """A row of one method with these options, whose names stand in the row."""
    segmenter, words = segmenter_of(name, clip), list(load_vocabulary(LARGE).names[:150])
    image = read_image(scenes(1, side)[0]["image"])
    encoded, times = segmenter.encode(image), {}
    for _ in range(repeats + 1):
        for asked in (words[:1], words):
            times.setdefault(("both", len(asked)), []).append(seconds(segmenter.segment, image, asked, **options))
            times.setdefault(("words", len(asked)), []).append(seconds(encoded.segment, asked, **options))
            times.setdefault(("read", len(asked)), []).append(seconds(read_logits, encoded, asked, **options))
    found = {key: 1000 * statistics.median(values[1:]) for key, values in times.items()}
    one, many = found["both", 1], found["both", 150]
    alone = f"the words alone {found['words', 1]:.0f} and {found['words', 150]:.0f} ms"
    alone += f", with their logits {found['read', 1]:.0f} and {found['read', 150]:.0f}"
    shown = f"{name:9} {clip or ''} {options or ''}"
    print(
        f"{shown} 1 and 150 words, a scene of {side} px: {one:.0f} and {many:.0f} ms, "
        f"ratio {many / one:.2f} (bar {TIME_BAR}); {alone}"
    )


def main() -> None:
    """Print two rows per method, or a case's bytes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=4, metavar=("METHOD", "VOCABULARY", "COUNT", "SIDE"), help="memory, as JSON")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--clip", help="one of open_clip, with random weights")
    parser.add_argument("--side", type=int, default=128, help="of the scenes")
    parser.add_argument("--count", type=int, default=16, help="of the scenes that are evaluated")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.case:
        name, vocabulary, count, side = args.case
        print(evaluated(name, vocabulary, int(count), int(side)))
        return
    for name in args.methods:
        if not args.clip:
            print_memory(name, args.count, args.side)
        for options in OPTIONS.get(name, ({},)):
            print_time(name, args.clip, args.side, args.repeats, **options)


if __name__ == "__main__":
    main()
