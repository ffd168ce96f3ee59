"""Drawing the sets of a configuration in several processes."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from kit.processes import environment
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

    monkeypatch.setattr(build, "worker_pool", never)
    assert build_all(TINY, tmp_path / "two", progress=False, processes=2) == two
    with pytest.raises(AssertionError, match="a process was started"):
        build_all(TINY, tmp_path / "two", seed=1, progress=False, processes=2)


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_here(tmp_path):
    (tmp_path / "icon-tiny").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="icon-tiny"):
        build_all(TINY, tmp_path, progress=False, processes=2)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them_and_what_they_began_is_made_again(tmp_path, monkeypatch):
    endless = replace(TINY, caption_scenes=10**6, sa_scenes=10**6)
    code = "from pathlib import Path; from ovs_lite.config import DataConfig; from ovs_lite.iconworld.build import *; "
    code += f"build_all({endless!r}, Path({str(tmp_path)!r}), processes=2)"
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stderr=subprocess.DEVNULL) as parent:
        while len(list(tmp_path.glob("*/*/.*.new"))) < 2:
            assert parent.poll() is None
            time.sleep(0.1)
        children = psutil.Process(parent.pid).children()
        parent.kill()
    assert len(children) >= 2 and not psutil.wait_procs(children, timeout=30)[1]
    monkeypatch.setattr(build, "SET_NAMES", SETS[:1])
    folder, *_ = build_all(TINY, tmp_path, progress=False)
    assert json.loads((folder / "manifest.json").read_text())["count"] == TINY.caption_scenes
