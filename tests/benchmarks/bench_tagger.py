"""Words of captions: the shipped tagger against NLTK's weights, and how long both take.

    python tests/benchmarks/bench_tagger.py captions_val2017.json --nltk-data FOLDER

The shipped weights have learned from the first 60 % of the images; agreement is measured on the others.
"""

import argparse
import json
import time
from pathlib import Path

from word_agreement import word_agreement

from ovs_lite.data.captions import extract_words
from ovs_lite.data.tagging import load_tagger

KINDS = (("noun",), ("noun", "adj"), ("noun", "adj", "verb"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--nltk-data", default="")
    args = parser.parse_args()
    rows = json.loads(args.captions.read_text(encoding="utf-8"))["annotations"]
    images = sorted({row["image_id"] for row in rows})
    learned = set(images[: round(0.6 * len(images))])
    others = [row["caption"] for row in rows if row["image_id"] not in learned]
    reference, shipped = load_tagger("nltk", args.nltk_data), load_tagger("shipped")
    print(f"{len(others)} captions of images that the shipped weights have not learned from\n")
    print("| words kept | precision | recall | F1 |\n| --- | ---: | ---: | ---: |")
    for kinds in KINDS:
        found = word_agreement(others, reference, shipped, kinds)
        print(f"| {' + '.join(kinds)} | {found.precision:.3f} | {found.recall:.3f} | {found.f1:.3f} |")
    seconds = {}
    for tagger in (reference, shipped):
        start = time.perf_counter()
        for row in rows:
            extract_words(row["caption"], tagger=tagger)
        seconds[tagger.name] = time.perf_counter() - start
    (name, base), (_, ours) = seconds.items()
    print(f"\n{len(rows)} captions: shipped {ours:.1f} s, {ours / base:.2f} of {name}'s")


if __name__ == "__main__":
    main()
