"""Where pairs come from: one prepared split or shards, as a path or below the data folder."""

import io
import tarfile

import pytest

from kit.ramps import pair
from ovs_lite.data.images import encode_image
from ovs_lite.data.loaders.pair_sources import load_pairs
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.record import write_split


def shard(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            record = pair(number, 8, 8)
            for kind, content in (("png", encode_image(record["image"])), ("txt", record["captions"][0].encode())):
                info = tarfile.TarInfo(f"{number:09d}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A data folder with one split and shards of two sets; the working folder is another one."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_split([pair(number, 8, 8) for number in range(3)], tmp_path / "data" / "set" / "train", progress=False)
    for name, numbers in (("cc3m/0", (0, 1)), ("cc3m/1", (2,)), ("cc12m/0", (3, 4))):
        shard(tmp_path / "data" / f"{name}.tar", numbers)
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


@pytest.mark.parametrize("sources", [[], ["set/train", "set/train"], ["set/train", "cc3m/*.tar"]])
def test_several_splits_and_mixtures_are_refused(world, sources):
    given = ", ".join(sources) or "nothing"
    with pytest.raises(ValueError) as error:
        load_pairs(sources)
    assert str(error.value) == f"got {given} as data, expected one prepared split or webdataset shards (*.tar)"


@pytest.mark.parametrize("source", ["absent/train", "absent/*.tar", "cc3m/7.tar"])
def test_what_is_not_there_is_named(world, source):
    with pytest.raises(FileNotFoundError, match=source.split("/")[0]):
        load_pairs([source])
