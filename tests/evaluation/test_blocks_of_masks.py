"""The grid, proposals and prompts in blocks: the reports of one pass, whatever the blocks, stops and processes."""

import functools

import numpy as np
import pytest

from kit.mask_evaluations import RECORDS, as_text, counters, evaluated
from kit.processes import launch, load
from ovs_lite.evaluation.run import counts_key, evaluate_in_blocks

KINDS = ("grid", "proposals", "promptable")


@functools.cache
def at_once(kind):
    counter, records = counters()[kind]
    return counter.report(*counter.count(records))


@functools.cache
def in_blocks(kind):
    return evaluated(kind)


class Reading(list):
    """Records that remember which were read, after their names."""

    def __init__(self, records):
        super().__init__(records)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_a_second_run_give_the_report_of_one_pass(tmp_path, kind):
    whole = as_text(at_once(kind))
    assert len(whole) > 1000 and as_text(in_blocks(kind)) == whole
    first = as_text(evaluated(kind, tmp_path))
    files = sorted(tmp_path.rglob("*.safetensors"))
    counter, records = counters()[kind]
    assert first == whole and len(files) == -(-len(records) // 2)
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-1])
    again = Reading(records)
    assert as_text(evaluated(kind, tmp_path, again)) == whole
    assert again.read == [2, 3, 4, 5], "what is missing and what is damaged is counted again, nothing else"
    assert as_text(evaluated(kind, tmp_path, Reading(records), fresh=True)) == whole
    with pytest.raises(ValueError, match="without key"):
        evaluate_in_blocks(counter, records, folder=tmp_path)


def test_images_with_many_few_and_no_masks_keep_their_own():
    report = in_blocks("promptable")
    assert report.image_ids[0] == "bare" and [len(one) for one in report.overlaps["1-box"]] == [0, *[3] * 7, 0]
    grid = in_blocks("grid")
    assert {region["image_id"] for region in grid.regions} == {record["image_id"] for record in RECORDS}
    assert grid.regions == at_once("grid").regions and len(grid.regions) > 50
    assert np.isfinite([value for row in grid.table.values() for value in row.values()]).all()


def test_a_key_changes_with_every_fact():
    keys = [counts_key(*about) for about in ((), ("a",), ("a", 1), (["a", 1],), ({"a": 1},), ("a", None))]
    assert len(set(keys)) == len(keys) and counts_key({"a": 1, "b": 2}) == counts_key({"b": 2, "a": 1})


@pytest.mark.slow
def test_two_processes_report_what_one_does(tmp_path):
    done = launch("kit.mask_evaluations.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = load(tmp_path)
    assert [found["rank"] for found in ranks] == [0, 1]
    for kind, (_, records) in counters().items():
        whole, few = as_text(in_blocks(kind)), as_text(evaluated(kind, records=records[:2]))
        for found in ranks:
            assert found[kind] == found[f"{kind} kept"] == whole
            assert found[f"{kind} few"] == few, "one process has no image"
        assert len(list((tmp_path / f"counts-{kind}").rglob("*.safetensors"))) == -(-len(records) // 2)
