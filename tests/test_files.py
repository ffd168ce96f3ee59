"""Files and the places where they lie."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest

from ovs_lite.files import data_path, file_digest, replacing, to_json, write_json, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "old ä")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "old ä"
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_windows_which_syncs_no_file_that_is_open_for_reading_only(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_json_keeps_the_order_of_the_keys_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": ["ü", None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "b": 1,') and "ü" in text and text.endswith("}\n")
    assert list(json.loads(text)) == ["b", "a"]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_the_digest_is_that_of_all_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with local/train and pairs/0.tar, and a data folder with set/train and shards/0.tar."""
    for folder in ("work/local/train", "work/pairs", "data/set/train", "data/shards"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("work/pairs/0.tar", "data/shards/0.tar"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize("name", ["local/train", "local", "pairs/*.tar", "*/0.tar", "../data/set", "local/to-be-made"])
def test_what_leads_somewhere_from_the_working_folder_stays_as_it_is(here, name):
    assert str(data_path(name)) == name


@pytest.mark.parametrize("name", ["set/train", "set", "shards/*.tar", "*.nothing", "absent/train", "shards/0.tar"])
def test_everything_else_lies_below_the_data_folder(here, name):
    assert data_path(name) == here / "data" / name


def test_absolute_paths_and_patterns_stay_as_they_are(here):
    for path in (here / "data" / "set", here / "absent", here / "data" / "shards" / "*.tar"):
        assert data_path(path) == data_path(str(path)) == path


def test_what_is_not_finite_becomes_null_in_json(tmp_path):
    content = {"a": float("nan"), "b": [1.5, (np.float32("inf"), {"c": np.float64("nan")})], "d": 3, "e": None}
    write_json(tmp_path / "x.json", content)
    for text in (to_json(content), (tmp_path / "x.json").read_text()):
        found = json.loads(text, parse_constant=lambda word: 1 / 0)
        assert found == {"a": None, "b": [1.5, [None, {"c": None}]], "d": 3, "e": None}
