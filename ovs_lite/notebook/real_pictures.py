"""Photographs for a notebook, where the user has some; the reader's report is shown, so that nothing is lost unseen."""

import os
from itertools import islice
from typing import Any

from ovs_lite.data.readers.coco import iter_coco
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.real_data import find_coco


def photographs(most: int) -> list[dict[str, Any]]:
    """The first `most` records of COCO's instances below OVS_REAL_DATA; none where that is not set or holds none.

    Prints what was read and what was not. Raises ValueError where listed images cannot be read, or none is there.
    """
    root = os.environ.get("OVS_REAL_DATA")
    if not root:
        print("OVS_REAL_DATA is not set: no photographs here")
        return []
    splits = [split for split in find_coco(root) if split.instances]
    if not splits:
        print(f"{root} (OVS_REAL_DATA) holds no COCO instances: no photographs here")
        return []
    report = ReaderReport()
    found = list(islice(iter_coco(splits[0].images, splits[0].instances, report=report, subset=True), most))
    print(report.summary())
    report.check()
    return found
