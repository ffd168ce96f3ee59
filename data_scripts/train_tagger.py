"""Train the tagger that ovs-lite ships: NLTK's perceptron on captions that NLTK's own weights tagged.

    python data_scripts/train_tagger.py CAPTIONS.json --nltk-data FOLDER

CAPTIONS.json: COCO's layout, such as captions_val2017.json; the captions of the first 60 % of its images are learned,
and the script prints how often both taggers agree on the others. Needs NLTK's averaged_perceptron_tagger_eng once.
The same captions give the same file. Half a minute.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

from nltk.tag.perceptron import PerceptronTagger

from ovs_lite.data.tagging import SHIPPED_WEIGHTS, load_tagger, tokens, trained
from ovs_lite.files import replacing

SMALLEST, DIGITS = 0.25, 2  # of the weights that are kept
SHARE = 0.6


def captions(path: Path) -> tuple[list[str], list[str]]:
    """Captions to learn from, and the others."""
    rows = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    rows = sorted(rows, key=lambda row: (row["image_id"], row["id"]))
    images = sorted({row["image_id"] for row in rows})
    first = set(images[: round(SHARE * len(images))])
    parts = ([], [])
    for row in rows:
        parts[row["image_id"] not in first].append(row["caption"])
    return parts


def pruned(tagger: PerceptronTagger) -> list:
    """Its parameters without what hardly counts, in a fixed order."""
    weights = {}
    for feature, row in sorted(tagger.model.weights.items()):
        kept = {tag: round(value, DIGITS) for tag, value in sorted(row.items()) if abs(value) >= SMALLEST}
        if kept:
            weights[feature] = kept
    return [weights, dict(sorted(tagger.tagdict.items())), sorted(tagger.classes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("captions", type=Path)
    parser.add_argument("--nltk-data", default="")
    args = parser.parse_args()
    learned, others = captions(args.captions)
    teacher = load_tagger("nltk", args.nltk_data)
    random.seed(0)  # the perceptron shuffles
    student = PerceptronTagger(load=False)
    student.train([sentence for text in learned if (sentence := teacher.tag(text))])
    parameters = pruned(student)
    tagger = trained(parameters)
    pairs = [pair for text in others for pair in zip(teacher.tag(text), tagger.tag(tokens(text)), strict=True)]
    agree = sum(mine == given for given, mine in pairs) / len(pairs)
    data = gzip.compress(json.dumps(parameters, separators=(",", ":"), ensure_ascii=False).encode(), mtime=0)
    with replacing(SHIPPED_WEIGHTS) as temporary:
        temporary.write_bytes(data)
    print(f"{SHIPPED_WEIGHTS}: {len(data) / 1e3:.0f} kB, from {len(learned)} captions")
    print(f"{agree:.1%} of {len(pairs)} tags of the other captions agree")


if __name__ == "__main__":
    main()
