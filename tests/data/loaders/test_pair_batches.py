"""Batches of image-text pairs: reproducible, every pair once an epoch, captions mirrored with their images."""

import copy
import gc
import io
import multiprocessing
import re
from collections import Counter

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from kit.images import box_of
from kit.processes import as_process
from kit.records import ramp_pair
from kit.warm import run
from ovs_lite.data.loaders.pair_batches import PairBatch, PairBatches
from ovs_lite.data.loaders.prefetch import Prefetched
from ovs_lite.data.record import load_split, write_split


def same(first, second):
    texts = (first.captions, first.image_ids, first.total) == (second.captions, second.image_ids, second.total)
    return texts and torch.equal(first.images, second.images)


def test_the_same_index_gives_the_same_batch_in_any_order_of_asking():
    split = [ramp_pair(number, captions=["a left", "b", "c"]) for number in range(5)]
    first, second = PairBatches(split, 3, 16, seed=4), PairBatches(split, 3, 16, seed=4)
    expected = [first(index) for index in range(8)]
    assert all(same(second(index), expected[index]) for index in (5, 0, 3, 3, 1, 4, 2, 0, 7))
    assert not any(same(expected[a], expected[b]) for a in range(8) for b in range(a))


def test_another_seed_gives_another_order_and_other_crops():
    split = [ramp_pair(number, 8, 8) for number in range(9)]
    assert len({tuple(PairBatches(split, 9, 8, seed)(0).image_ids) for seed in range(5)}) == 5
    found = [PairBatches([ramp_pair(0)], 1, 16, seed)(epoch) for seed in range(3) for epoch in range(4)]
    assert not any(same(found[a], found[b]) for a in range(12) for b in range(a))


@pytest.mark.parametrize("augment", ["crop", "strong"])
def test_a_run_that_starts_at_batch_7_sees_what_one_from_0_sees(augment):
    split = [ramp_pair(number) for number in range(11)]
    through = PairBatches(split, 4, 16, augment=augment)
    for index in range(7):
        through(index)
    assert same(PairBatches(split, 4, 16, augment=augment)(7), through(7))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16])
def test_every_picture_comes_once_per_epoch_in_another_order(batch_size):
    split = [ramp_pair(number, 8, 8) for number in range(7)]
    batches = PairBatches(split, batch_size, 8, seed=1)
    found = [batches(index) for index in range(-(-35 // batch_size))]
    names = [name for batch in found for name in batch.image_ids]
    epochs = [tuple(names[start : start + 7]) for start in range(0, 35, 7)]
    assert all(sorted(epoch) == [f"p{number}" for number in range(7)] for epoch in epochs) and len(set(epochs)) == 5
    for batch in found:
        assert isinstance(batch, PairBatch) and len(batch.image_ids) == batch.total == len(batch.captions) == batch_size
        assert batch.captions == [f"picture {name[1:]}" for name in batch.image_ids]
        assert (batch.images[:, 2] * 255).round().flatten(1).unique(dim=1)[:, 0].tolist() == [
            int(name[1:]) for name in batch.image_ids
        ]


def test_each_caption_of_a_picture_is_used_as_often():
    batches = PairBatches([ramp_pair(0, 8, 8, ["a", " ", "b", "c"])], 300, 8)
    counts = Counter(batches(0).captions)
    assert set(counts) == {"a", "b", "c"} and min(counts.values()) > 70


def test_a_caption_is_mirrored_with_its_picture_and_only_then():
    batches = PairBatches([ramp_pair(0, captions=["a dog Left of a cat, right-hand side"])], 60, 64)
    batch = batches(0)
    for image, caption in zip(batch.images, batch.captions, strict=True):
        mirrored = box_of(image)[4]
        assert (
            caption == f"a dog {'Right' if mirrored else 'Left'} of a cat, {'left' if mirrored else 'right'}-hand side"
        )
    assert 15 < sum("Right" in caption for caption in batch.captions) < 45


def test_records_without_captions_are_left_out(tmp_path):
    records = [ramp_pair(0, 8, 8, []), ramp_pair(1, 8, 8), ramp_pair(2, 8, 8, []), ramp_pair(3, 8, 8)]
    write_split(records, tmp_path / "a", progress=False)
    for split in (records, load_split(tmp_path / "a")):
        batches = PairBatches(split, 2, 8)
        assert all(sorted(batches(index).image_ids) == ["p1", "p3"] for index in range(4))
    for split in ([], records[:1], load_split(tmp_path / "a").select([0, 2])):
        with pytest.raises(ValueError, match=f"got {len(split)} records, none with a caption"):
            PairBatches(split, 2, 8)


def test_a_loaded_split_serves_as_well_as_dictionaries(tmp_path):
    records = [ramp_pair(number, 20, 24, [f"{number} a", f"{number} b"]) for number in range(5)]
    write_split(records, tmp_path / "a", progress=False)
    first, second = PairBatches(records, 3, 16), PairBatches(load_split(tmp_path / "a").with_format("torch"), 3, 16)
    assert second._loader.split.column_names == ["image_id", "image", "captions"], "no segments are decoded for nothing"
    assert all(same(first(index), second(index)) for index in range(4))


class Stream:
    """A split that brings its own order, as WebShards does."""

    def __init__(self, records):
        self.records, self.asked = records, []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]

    def order(self, seed, epoch):
        self.asked.append((seed, epoch))
        return np.roll(np.arange(len(self)), seed + epoch)


def test_a_split_with_an_order_of_its_own_keeps_it():
    split = Stream([ramp_pair(number, 8, 8) for number in range(4)])
    batches = PairBatches(split, 2, 8, seed=1)
    names = [name for index in range(4) for name in batches(index).image_ids]
    assert names == ["p3", "p0", "p1", "p2", "p2", "p3", "p0", "p1"] and split.asked == [(1, 0), (1, 1)]
    with pytest.raises(ValueError, match="record 'p0' without a caption"):
        PairBatches(Stream([ramp_pair(0, captions=[])]), 1, 8)(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_processes_shares_are_the_whole_batch(monkeypatch, workers):
    split = [ramp_pair(number, captions=["a", "left"]) for number in range(10)]
    for index in (0, 3):
        whole = PairBatches(split, 4, 16)(index)
        for rank in range(2):
            as_process(monkeypatch, rank, 2)
            part = PairBatches(split, 4, 16, workers=workers)(index)
            assert torch.equal(part.images, whole.images[rank::2]) and part.captions == whole.captions[rank::2]
            assert part.image_ids == whole.image_ids[rank::2] and (len(part.image_ids), part.total) == (2, 4)
        monkeypatch.undo()


def test_a_process_reads_only_its_share(monkeypatch):
    read = []
    split = Stream([ramp_pair(number, 8, 8) for number in range(8)])
    monkeypatch.setattr(Stream, "__getitem__", lambda self, index: read.append(index) or self.records[index])
    as_process(monkeypatch, 1, 4)
    PairBatches(split, 8, 8)(0)
    assert read == [1, 5]


@pytest.mark.parametrize("augment", ["crop", "strong"])
def test_worker_processes_change_no_number(augment):
    split = [ramp_pair(number, captions=["a", "left"]) for number in range(5)]
    alone, helped = (PairBatches(split, 4, 16, augment=augment, workers=workers) for workers in (0, 2))
    state = torch.get_rng_state()
    assert all(same(alone(index), helped(index)) for index in (3, 4, 5, 5, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_continue_as_long_as_the_indices_follow(monkeypatch):
    started = []
    original = PairBatches._workers_from
    start = lambda self, index: started.append(index) or original(self, index)  # noqa: E731
    monkeypatch.setattr(PairBatches, "_workers_from", start)
    batches = PairBatches([ramp_pair(number, 8, 8) for number in range(5)], 2, 8, workers=1)
    for index in (2, 3, 4, 4, 5, 0, 1):
        batches(index)
    assert started == [2, 4, 0]


@pytest.mark.parametrize("circular", [False, True])
def test_workers_end_when_their_batches_are_dropped(circular):
    batches = PairBatches([ramp_pair(0, 8, 8)], 1, 8, workers=1)
    batches(0)
    batches.itself = batches if circular else None
    assert multiprocessing.active_children()
    del batches
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_started_afresh_can_be_given_all_it_needs(tmp_path):
    """Where processes are not forked, what they need is copied over; deepcopy asks the same of it."""
    write_split([ramp_pair(number) for number in range(3)], tmp_path / "a", progress=False)
    for augment in ("crop", "strong"):
        batches = PairBatches(load_split(tmp_path / "a"), 3, 16, augment=augment)
        places = batches._places(1)
        assert same(copy.deepcopy(batches._loader)[places], batches(1))


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_at_once_and_leaves_nobody_behind():
    """In a process of its own: torch raises the error wherever the main thread is, while it prints another one, too."""
    done = run("kit.loader_faults.a_worker_is_killed", timeout=60)
    assert done.returncode == 1
    assert re.search("DataLoader worker .*killed", done.stderr), done.stderr
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2 and not any(psutil.pid_exists(worker) for worker in workers)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_a_worker_that_dies_while_it_hands_over_is_told_from_bad_data(monkeypatch, error):
    """Its socket is closed before torch hears that it is gone; the next call starts others."""

    class Bad(Stream):
        def __getitem__(self, place):
            raise error("bad data")

    with pytest.raises(error, match="bad data"):
        PairBatches(Bad([ramp_pair(number, 8, 8) for number in range(4)]), 1, 8, workers=1)(0)

    def hangs_up(loader):
        raise error

    batches = PairBatches([ramp_pair(number, 8, 8) for number in range(4)], 1, 8, workers=1)
    expected = [batches(index).image_ids for index in (0, 1)]
    batches(0)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="DataLoader worker was killed"):
        patch.setattr(type(batches._ahead), "__next__", hangs_up)
        batches(1)
    assert batches(1).image_ids == expected[1]


def test_an_error_in_a_worker_is_raised_and_the_next_call_starts_again():
    split = Stream([ramp_pair(number, 8, 8) for number in range(4)])
    split.records[1] = ramp_pair(1, 8, 8, [])
    batches = PairBatches(split, 1, 8, workers=1)
    assert batches(0).image_ids == ["p0"]
    for _ in range(2):
        with pytest.raises(ValueError, match="record 'p1' without a caption"):
            batches(1)
    assert batches(2).image_ids == ["p2"]


def test_prefetched_batches_are_the_same():
    split = [ramp_pair(number) for number in range(5)]
    ahead, plain = Prefetched(PairBatches(split, 3, 16)), PairBatches(split, 3, 16)
    assert all(same(ahead(index), plain(index)) for index in range(6))


def test_encoded_and_grey_images_are_read_like_arrays():
    stream = io.BytesIO()
    Image.fromarray(ramp_pair(3)["image"]).save(stream, "PNG")
    plain = PairBatches([ramp_pair(3)], 2, 16)(0)
    assert same(PairBatches([ramp_pair(3) | {"image": stream.getvalue()}], 2, 16)(0), plain)
    grey = PairBatches([ramp_pair(3) | {"image": ramp_pair(3)["image"][..., 0]}], 2, 16)(0)
    assert torch.equal(grey.images, plain.images[:, :1].expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 0}, "size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"crop_area": (0.8, 0.5)}, r"crop_area=\(0.8, 0.5\)"),
        ({"augment": "all"}, "got augment='all', expected one of crop, strong"),
    ],
)
def test_settings_that_cannot_be_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        PairBatches(**{"split": [ramp_pair(0)], "batch_size": 1, "size": 8, **words})
