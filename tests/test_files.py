"""Files and the places where they lie."""

import errno
import hashlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from ovs_lite import files
from ovs_lite.files import (
    cache_root,
    check_space,
    check_writable,
    data_path,
    existing_folder,
    file_digest,
    one_line,
    printable,
    replacing,
    to_json,
    write_json,
    write_text,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "old ä")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "old ä"
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_text_that_utf_8_lacks_is_escaped(tmp_path):
    write_json(tmp_path / "a.json", ["caf\udce9"])
    assert "caf\\udce9" in (tmp_path / "a.json").read_text() and json.loads((tmp_path / "a.json").read_text()) == [
        "caf\udce9"
    ]


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


def in_the_way(folder, kind):
    """A path below `folder` where no file can be written, and what is said about it."""
    path, text = folder / "out.png", "choose another name"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "long name":
        path, text = folder / ("a" * 300), "choose a shorter name"
    elif kind == "parent":
        (folder / "file").touch()
        path = folder / "file" / "deep" / "out.png"
    return path, text


@pytest.mark.parametrize("kind", ["folder", "pipe", "long name", "parent"])
def test_what_cannot_be_written_is_known_before_the_work_and_named(tmp_path, kind):
    path, text = in_the_way(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError) as first, replacing(path):
        raise AssertionError("the work began")
    with pytest.raises(OSError) as second:
        check_writable(path)
    for error in (first.value, second.value):
        assert text in one_line(error) and (kind == "parent" or path.name[:9] in one_line(error))
    assert sorted(tmp_path.rglob("*")) == before


def test_trying_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.png", "old")
    for name in ("a.png", "b.png", "ü" * 120 + ".png"):  # 244 bytes
        check_writable(tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    write_text(tmp_path / ("ü" * 120 + ".safetensors"), "251 bytes")


def test_a_full_disk_is_reported_by_the_name_of_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError) as found:
        write_text(tmp_path / "a.txt", "x")
    assert one_line(found.value) == f"{tmp_path}/a.txt: No space left on device; free some space"
    assert list(tmp_path.iterdir()) == []


def test_space_is_that_of_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "a" / "b.zip", tmp_path / "file"):
        assert existing_folder(path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert existing_folder("a/b") == tmp_path
    asked = []
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=10))
    check_space(tmp_path / "a" / "b.zip", 10)
    with pytest.raises(OSError, match="11 bytes needed, 10 free") as found:
        check_space(tmp_path / "a" / "b.zip", 11)
    assert asked == [tmp_path] * 2 and one_line(found.value).startswith(f"{tmp_path}/a/b.zip: No space left on device")


def test_an_error_about_another_file_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as found, replacing(tmp_path / "a"):
        open(tmp_path / "absent")
    assert one_line(found.value) == f"{tmp_path}/absent: No such file or directory"


def test_names_do_not_steer_the_terminal():
    assert printable("a\x1b[31mb\r\x9bc\u202ed\udce9\x07") == r"a\x1b[31mb\r\x9bc\u202ed\udce9\x07"
    assert printable("猫 \u200d e\u0301\n\tü") == "猫 \u200d e\u0301\n\tü"
    assert len(printable("a" * 5000)) < 200 and printable("a" * 250) == "a" * 250
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "a\n\x1b]0;b\x07")
    assert one_line(error) == r"a \x1b]0;b\x07: No such file or directory"


def test_an_empty_cache_variable_is_the_default_and_without_a_home_nothing_is_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", None):
        monkeypatch.delenv("OVS_CACHE") if value is None else monkeypatch.setenv("OVS_CACHE", value)
        assert cache_root() == tmp_path / ".cache" / "ovs-lite"
    monkeypatch.setenv("OVS_CACHE", "~/mine")
    assert cache_root() == tmp_path / "mine"

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files.Path, "expanduser", homeless)
    with pytest.raises(OSError):
        write_text(cache_root() / "text" / "a", "x")
