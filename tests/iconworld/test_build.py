"""Drawing the sets of a configuration in several processes."""

import json

import pytest

from ovs_lite.config import DataConfig
from ovs_lite.iconworld import build
from ovs_lite.iconworld.build import build_all

SETS = ("icon-caption", "icon-sa", "icon-voc20")  # captions, parts, and the masks of a validation split
TINY = DataConfig("icon-tiny", caption_scenes=3, train_scenes=2, val_scenes=2, sa_scenes=2, image_size=64)


@pytest.mark.slow
def test_two_processes_write_what_one_writes_and_the_next_call_starts_none(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SET_NAMES", SETS)
    one = build_all(TINY, tmp_path / "one", progress=False)
    two = build_all(TINY, tmp_path / "two", progress=False, processes=2)
    assert [path.relative_to(tmp_path / "one") for path in one] == [path.relative_to(tmp_path / "two") for path in two]
    assert {path.parent.name for path in one} == set(SETS)
    for first, second in zip(one, two, strict=True):
        assert json.loads((first / "manifest.json").read_text()) == json.loads((second / "manifest.json").read_text())

    def never(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(build, "ProcessPoolExecutor", never)
    assert build_all(TINY, tmp_path / "two", progress=False, processes=2) == two
    with pytest.raises(AssertionError, match="a process was started"):
        build_all(TINY, tmp_path / "two", seed=1, progress=False, processes=2)


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_here(tmp_path):
    (tmp_path / "icon-tiny").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="icon-tiny"):
        build_all(TINY, tmp_path, progress=False, processes=2)
