"""Where pairs come from: one prepared split or shards, as a path or below the data folder."""

import numpy as np
import pytest
import torch

from kit.records import ramp_pair
from kit.shards import sample, write_shard
from ovs_lite.data.loaders.pair_batches import PairBatches, load_pairs
from ovs_lite.data.loaders.synthetic_pairs import COUNT, SyntheticPairs
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.record import write_split


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A data folder with one split and shards of two sets; the working folder is another one."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_split([ramp_pair(number, 8, 8) for number in range(3)], tmp_path / "data" / "set" / "train", progress=False)
    for name, numbers in (("cc3m/0", (0, 1)), ("cc3m/1", (2,)), ("cc12m/0", (3, 4))):
        write_shard(tmp_path / "data" / f"{name}.tar", [part for number in numbers for part in sample(number)])
    return tmp_path


def captions(pairs):
    return [pairs[index]["captions"] for index in range(len(pairs))]


def test_a_prepared_split_is_found_below_the_data_folder_and_as_a_path(world):
    for source in ("set/train", world / "data" / "set" / "train", "../data/set/train"):
        assert captions(load_pairs([str(source)])) == [[f"picture {number}"] for number in range(3)]


def test_patterns_of_shards_are_joined_in_their_order(world):
    for sources in (["cc3m/*.tar", "cc12m/*.tar"], ["../data/cc3m/*.tar", str(world / "data" / "cc12m" / "0.tar")]):
        pairs = load_pairs(sources)
        assert isinstance(pairs, WebShards) and captions(pairs) == [[f"picture {number}"] for number in range(5)]


@pytest.mark.parametrize(
    "sources", [[], ["set/train", "set/train"], ["set/train", "cc3m/*.tar"], ["synthetic", "set/train"]]
)
def test_several_splits_and_mixtures_are_refused(world, sources):
    given = ", ".join(sources) or "nothing"
    with pytest.raises(ValueError) as error:
        load_pairs(sources)
    assert (
        str(error.value) == f"got {given} as data, expected one prepared split, webdataset shards (*.tar), or synthetic"
    )


@pytest.mark.parametrize("source", ["absent/train", "absent/*.tar", "cc3m/7.tar"])
def test_what_is_not_there_is_named(world, source):
    with pytest.raises(FileNotFoundError, match=source.split("/")[0]):
        load_pairs([source])


@pytest.mark.parametrize(
    "source", ["cc3m/{0..1}.tar::cc12m/*.tar", "{cc3m/0,cc3m/1,cc12m/0}.tar", "cc*/0.tar::cc3m/1.tar"]
)
@pytest.mark.parametrize("here", ["work", "data"])
def test_braces_and_unions_are_found_below_the_data_folder_and_in_the_working_folder(world, monkeypatch, source, here):
    monkeypatch.chdir(world / here)
    assert sorted(pair[0] for pair in captions(load_pairs([source]))) == [f"picture {number}" for number in range(5)]


def test_synthetic_pairs_are_noise_with_words_the_same_for_the_same_index():
    pairs = load_pairs(["synthetic:7"])
    assert isinstance(pairs, SyntheticPairs) and len(pairs) == 7 and len(load_pairs(["synthetic"])) == COUNT
    assert len({tuple(record["captions"]) for record in pairs}) == 7 and len({row["image_id"] for row in pairs}) == 7
    first, again, other = pairs[3], pairs[-4], pairs[4]
    assert first["image"].shape == (256, 256, 3) and first["image"].dtype == np.uint8
    assert np.array_equal(first["image"], again["image"]) and first["captions"] == again["captions"]
    assert not np.array_equal(first["image"], other["image"]) and abs(first["image"].mean() - 127.5) < 1
    with pytest.raises(IndexError):
        pairs[7]


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:many", "synthetic:0", "synthetic:-3"])
def test_a_number_of_synthetic_pairs_that_cannot_be_is_refused(source):
    with pytest.raises(ValueError, match="expected .*synthetic:1000"):
        load_pairs([source])


def test_a_folder_called_synthetic_is_given_as_a_path(world):
    (world / "data" / "set" / "train").rename(world / "work" / "synthetic")
    assert len(load_pairs(["./synthetic"])) == 3


def test_training_batches_of_synthetic_pairs_are_a_function_of_their_index():
    """Each comes once per epoch, and no file is read."""
    batches = [PairBatches(load_pairs(["synthetic:6"]), 3, 32, seed=5) for _ in range(2)]
    epoch = [batches[0](index) for index in (0, 1)]
    assert len({name for batch in epoch for name in batch.image_ids}) == 6
    again = batches[1](1)
    assert torch.equal(again.images, epoch[1].images) and again.captions == epoch[1].captions
