"""Evaluations in blocks: shards sum to the whole, two processes equal one, a killed run resumes with the same bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kit import warm
from kit.colour_methods import RECORDS
from kit.evaluation_runs import HOW, Known, evaluated, panoptic
from kit.processes import as_process, launch, load
from kit.vocabularies import GROUND
from ovs_lite.distributed import shard
from ovs_lite.evaluation import evaluate_segmentation
from ovs_lite.evaluation.blocks import count_in_blocks
from ovs_lite.evaluation.run import counts_of, evaluate_set, package_digest


def same(first, second):
    """Whether two reports are equal to the bit."""
    pairs = [(first, second)] + [(first.grounding, second.grounding)] * (first.grounding is not None)
    return all(
        a.image_ids == b.image_ids and a.ignored == b.ignored and list(a.counts) == list(b.counts)
        and all(np.array_equal(a.counts[cut], b.counts[cut]) for cut in a.counts)
        for a, b in pairs
    )  # fmt: skip


@pytest.mark.parametrize("block", [1, 3, 5, 64])
def test_blocks_equal_the_whole_at_once(block):
    how = {key: value for key, value in HOW.items() if key not in ("data", "block")}
    whole = evaluate_segmentation(Known(), RECORDS, GROUND, **how)
    found = evaluated(block=block, noise=0.0)
    assert same(found, whole) and found.scores.miou == whole.scores.miou and 0.1 < found.scores.miou < 0.9
    assert found.card.hash == evaluated(block=7, noise=0.0).card.hash


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_the_sum_of_shards_is_the_whole(monkeypatch, processes):
    whole = evaluated()
    parts = []
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        records = Shared(RECORDS)
        spans = [(start, min(start + 3, len(RECORDS))) for start in range(0, len(RECORDS), 3)]
        mine = [index for span in shard(spans) for index in range(*span)]
        parts.append(counted_alone(records))
        assert records.read == mine, "each image by one process only"
        assert len(parts[-1]["counts"]) == len(mine)
    monkeypatch.undo()
    total = sum(part["counts"].sum(0, dtype=np.int64) for part in parts)
    for t, cut in enumerate(whole.counts):
        assert np.array_equal(total[0, t], whole.counts[cut].sum(0)), cut
        assert np.array_equal(total[1, t], whole.grounding.counts[cut].sum(0)), cut
    assert sum(int(part["ignored"].sum()) for part in parts) == whole.ignored
    assert sum(len(part["ignored"]) for part in parts) == len(RECORDS)


class Shared(list):
    """Records that remember which were read."""

    def __init__(self, records):
        super().__init__(records)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def counted_alone(records):
    """What this process counts, before anything is gathered."""
    from ovs_lite.evaluation.segmentation import segmentation_counter

    how = {key: value for key, value in HOW.items() if key not in ("data", "block")}
    counter = segmentation_counter(Known(0.05), GROUND, **how)

    def count(some):
        _, counts, ignored = counter.count(some)
        return {"counts": counts, "ignored": ignored}

    return count_in_blocks(count, records, block=3)


def test_a_resumed_run_reads_no_finished_block_and_gives_the_same_bits(tmp_path):
    whole = evaluated()
    done = warm.run("kit.evaluation_runs.killed", tmp_path)
    assert done.returncode == -9, done.stderr
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.stem for path in files] == ["images-0000000-0000003", "images-0000003-0000006"]
    records = Shared(RECORDS)
    assert same(evaluated(tmp_path, records), whole)
    assert sorted(set(records.read[-8:])) == list(range(6, 14))
    again = Shared(RECORDS)
    method = Known(0.05)
    assert same(evaluate_set(method, again, GROUND, folder=tmp_path, **HOW), whole) and method.shapes == []


def test_a_damaged_block_and_one_of_another_key_are_counted_again(tmp_path):
    whole = evaluated(tmp_path)
    path = sorted(tmp_path.rglob("*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    method = Known(0.05)
    assert same(evaluate_set(method, RECORDS, GROUND, folder=tmp_path, **HOW), whole)
    assert sum(shape[0] for shape in method.shapes if shape) > 0
    foreign = counts_of(tmp_path, whole.card.hash, [r["image_id"] for r in RECORDS])
    counts = foreign.read(3, 6)
    assert counts is not None and replace(foreign, key="other").read(3, 6) is None
    assert replace(foreign, ids=tuple("abcdefgh")).read(3, 6) is None, "other images at the same places"
    assert package_digest() in foreign.key


def test_a_changed_protocol_never_mixes(tmp_path):
    first = evaluated(tmp_path)
    for change in ({"background": (-1.5, -0.4)}, {"data": "others"}, {"seed": 1}, {"gain": 2.0}):
        method = Known(0.05)
        found = evaluate_set(method, RECORDS, GROUND, folder=tmp_path, **(HOW | change))
        assert found.card.hash != first.card.hash and method.shapes, change
    assert len(list(tmp_path.iterdir())) == 5
    counts_of(tmp_path, first.card.hash).remove()
    assert len(list(tmp_path.iterdir())) == 4


def test_more_images_take_the_full_blocks_of_fewer(tmp_path):
    evaluated(tmp_path, RECORDS[:8])
    records = Shared(RECORDS)
    assert same(evaluated(tmp_path, records), evaluated())
    assert not {0, 1, 2, 3, 4, 5} & set(records.read[len(RECORDS) :]), "two of three blocks were full"


def test_fresh_counts_everything_again(tmp_path):
    evaluated(tmp_path)
    method = Known(0.05)
    evaluate_set(method, RECORDS, GROUND, folder=tmp_path, fresh=True, **HOW)
    assert sum(shape[0] for shape in method.shapes) > 0


def test_random_numbers_are_those_of_the_seed_and_leave_the_callers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = evaluated()
    assert torch.equal(torch.rand(1), expected)
    assert same(first, evaluated()) and not same(first, evaluated(seed=1))


def test_panoptic_counts_in_blocks_equal_the_whole(tmp_path):
    from kit.evaluation_runs import by_colour
    from ovs_lite.evaluation.panoptic import evaluate_panoptic

    whole = evaluate_panoptic(by_colour, RECORDS, GROUND)
    for _ in range(2):
        found = panoptic(tmp_path)
        assert np.array_equal(found.per_image, whole.per_image) and found.image_ids == whole.image_ids
    assert whole.per_image.any() and len(list(tmp_path.rglob("*.safetensors"))) == 5


def test_no_record_and_mistakes():
    empty = evaluated(records=[])
    assert empty.images == 0 and empty.counts[-0.5].shape == (0, 3, 4)
    with pytest.raises(ValueError, match="got block=0, expected at least 1"):
        evaluated(block=0)
    with pytest.raises(ValueError, match="without data, expected the digest of the records"):
        evaluated("somewhere", data="")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    done = launch("kit.evaluation_runs.two_processes", tmp_path)
    assert done.returncode == 0, done.stderr
    whole, few, things = evaluated(), evaluated(records=RECORDS[:2]), panoptic()
    ranks = load(tmp_path)
    for found in ranks:
        for way in ("own", "shared", "none"):
            assert found[way]["ids"] == list(whole.image_ids) and found[way]["ignored"] == whole.ignored
            for tensor, counts in zip(found[way]["counts"], whole.counts.values(), strict=True):
                assert np.array_equal(tensor.numpy(), counts)
            for tensor, counts in zip(found[way]["grounding"], whole.grounding.counts.values(), strict=True):
                assert np.array_equal(tensor.numpy(), counts)
        assert np.array_equal(found["panoptic"].numpy(), things.per_image)
        assert np.array_equal(found["few"].numpy(), few.per_image), "a process without any image"
    assert len(list((tmp_path / "shared").rglob("*.safetensors"))) == 5
