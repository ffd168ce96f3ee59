"""Write the vocabulary of PASCAL-Context's 459 classes: python data_scripts/make_context459.py labels.txt out.json

labels.txt comes with the data set (its lines: "2: aeroplane"); the kit has no copy of it. Give the path of the written
file wherever a vocabulary is asked for; `ovs-lite data prepare context459` writes it too. Label maps: those of the data
set hold 1..459, 0 without a label; the 16-bit TIFFs that scripts prepare for detectron2 hold 0..458, 65535 without a
label (numbers="class" of `iter_label_maps`).
"""

import argparse
from pathlib import Path

from ovs_lite.data.readers.class_list import class_list
from ovs_lite.data.readers.pixel_rules import CONTEXT_CLASSES, CONTEXT_SOURCE
from ovs_lite.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="labels.txt of the data set")
    parser.add_argument("out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    content = class_list(args.labels, "context459", CONTEXT_SOURCE, CONTEXT_CLASSES)
    write_json(args.out, content)
    print(f"{args.out}: {content['count']} classes")


if __name__ == "__main__":
    main()
