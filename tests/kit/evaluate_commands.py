"""Four `ovs-lite evaluate` commands on three images in blocks of one, by one process or by two of `kit.processes`."""

import pytest

from ovs_lite import distributed
from ovs_lite.cli import main
from ovs_lite.evaluation import run

COMMANDS = {
    "grid": ["--masks", "truth", "classical", "--classifier", "crops", "oracle"],
    "proposals": ["--budget", "9"],
    "promptable": ["--method", "uniovseg", "--kind", "1-box", "inner point"],
    "panoptic": ["--method", "uniovseg"],
}


def evaluate_all(out: str) -> None:
    """One after the other in one process group, which a command of its own would end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "destroy_process_group", distributed.barrier)
        patch.setitem(run.evaluate_in_blocks.__kwdefaults__, "block", 1)
        for kind, words in COMMANDS.items():
            rest = ["--set", "icon-coco", "--profile", "smoke", "--images", "3", "--counts", f"{out}/counts"]
            assert main(["evaluate", kind, *words, *rest, "--out", f"{out}/{kind}.json"]) == 0, kind
