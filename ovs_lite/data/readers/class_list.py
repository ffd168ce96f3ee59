"""Class names that come with a data set's own copy, "12: accordion" a line, as a vocabulary.

PASCAL-Context (Mottaghi et al., CVPR 2014) names its 459 classes in such a file, labels.txt. Numbers there are those of
its label maps, from 1 on; 0 is a pixel without a label.
"""

import re
from pathlib import Path
from typing import Any

from ovs_lite.data.vocabulary import parse_vocabulary

LINE = re.compile(r"(\d+)\s*:\s*(.*\S)")


def class_list(path: str | Path, name: str, source: str, count: int, ignore_index: int = 65535) -> dict[str, Any]:
    """What a vocabulary file of the list holds: see `ovs_lite.data.vocabulary`. Classes in the order of their numbers.

    count: how many classes there are, as a check. A line of number 0 names pixels without a label and is no class.
    No class is a thing: such lists do not say. Raises FileNotFoundError, ValueError naming the line or what is wrong.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no list of classes at {path}; expected text with lines such as '12: accordion'")
    names: dict[int, str] = {}
    for at, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        if not (found := LINE.fullmatch(line.strip())):
            raise ValueError(f"{path}, line {at}: got {line[:80]!r}, expected a number, a colon and a name")
        if int(found[1]) in names:
            raise ValueError(f"{path}, line {at}: got number {found[1]} again, expected each once")
        names[int(found[1])] = " ".join(found[2].split())
    classes = [
        {"id": index, "name": names[number], "synonyms": [], "is_thing": False, "source_id": number}
        for index, number in enumerate(sorted(set(names) - {0}))
    ]
    head = {"name": name, "source": source, "count": count, "ignore_index": ignore_index, "background": None}
    content = head | {"void": [0], "classes": classes}
    try:
        parse_vocabulary(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return content
