"""Several trainings at once, one of them here: the same numbers as one after another, whoever trained what."""

import pytest
import torch

from kit.runs import rows
from ovs_lite.config import get_profile, override
from ovs_lite.iconworld.build import build_set
from ovs_lite.methods import get_recipe
from ovs_lite.train import side_by_side
from ovs_lite.train.side_by_side import launch_each

NAME = "openseg-proposals"
TINY = {"steps": 2, "batch": 4, "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64, "log_every": 1}


@pytest.fixture
def configs(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    build_set("icon-coco", get_profile("smoke").data, tmp_path / "data", progress=False)
    base = override(get_recipe(NAME).presets["smoke"], TINY)
    return {f"seed {seed}": override(base, {"seed": seed}) for seed in range(4)}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_two_at_once_are_what_one_after_another_is(configs, tmp_path, threads, capsys):
    seen, ended = [], []
    threads(1)
    alone = launch_each(NAME, configs, tmp_path / "one", done=ended.append)
    assert ended == [*configs], "one after another"
    threads(2)
    printed = capsys.readouterr().out
    watched = {"seed 2": lambda step, row: seen.append(step)}
    both = launch_each(NAME, configs, tmp_path / "two", watched, fresh=True, done=ended.append)
    assert torch.get_num_threads() == 2 and seen == [0, 1]
    assert [*both] == [*alone] == [*configs] and sorted(ended[4:]) == sorted(configs)
    for title in configs:
        assert rows(tmp_path / "one" / title)[0]["loss"] == rows(tmp_path / "two" / title)[0]["loss"]
        for one, two in zip(alone[title].parameters(), both[title].parameters(), strict=True):
            assert torch.equal(one, two)
    assert capsys.readouterr().out.count("wrote ") == printed.count("wrote ") == 4, "a worker's lines are shown here"


def test_after_a_failure_none_is_started_and_it_is_raised_here(configs, tmp_path, threads):
    threads(2)
    broken = {title: override(config, {"data": "nowhere"}) for title, config in configs.items()}
    with pytest.raises(FileNotFoundError, match="no data set at .*nowhere"):
        launch_each(NAME, broken | {"last": configs["seed 0"]}, tmp_path / "run")
    assert torch.get_num_threads() == 2 and not [*(tmp_path / "run").rglob("*.safetensors")]


def test_as_many_at_once_as_threads_and_memory_allow(threads, monkeypatch):
    threads(2)
    assert side_by_side.trainings_at_once() == 2
    free = type("Memory", (), {"available": 3 * side_by_side.MEMORY_OF_ONE // 2})
    monkeypatch.setattr(side_by_side.psutil, "virtual_memory", lambda: free)
    assert side_by_side.trainings_at_once() == 1
    free.available = 100 * side_by_side.MEMORY_OF_ONE
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert side_by_side.trainings_at_once() == side_by_side.MOST_AT_ONCE
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert side_by_side.trainings_at_once() == 1
