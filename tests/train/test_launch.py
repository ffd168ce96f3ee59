"""Trainings started from a notebook: in this process or in several, failures told with what they printed."""

import json
import sys

import pytest

from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_set
from ovs_lite.train.launch import command, launch


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A training of two steps on the smoke scenes."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build_set("icon-coco", get_profile("smoke").data, tmp_path / "data", progress=False)
    sizes = ["--channels", "16", "--queries", "6", "--layers", "1", "--heads", "2", "--image-size", "64"]
    return ["proposals", "openseg", "--profile", "smoke", "--steps", "2", "--out", tmp_path / "run", *sizes]


def rows(words):
    lines = (words[words.index("--out") + 1] / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_one_process_trains_here_and_calls_back(words):
    seen = []
    launch(words, on_step=lambda step, row: seen.append(step), processes=1)
    assert seen == [0, 1] and [row["step"] for row in rows(words)] == [0, 1]
    assert (words[words.index("--out") + 1] / "proposals.safetensors").exists()


@pytest.mark.slow
def test_two_processes_train_the_same_and_their_output_is_passed_on(words, capsys):
    launch(words, processes=1)
    alone = rows(words)
    launch([*words, "--fresh"], processes=2)
    assert "proposals.safetensors" in capsys.readouterr().out
    for one, two in zip(alone, rows(words), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_failure_is_told_with_its_last_lines(words):
    with pytest.raises(RuntimeError, match="(?s)2 processes ended with 1; .*expected a name of timm.list_models"):
        launch([*words, "--backbone", "resnet_of_dreams"], processes=2)


@pytest.mark.parametrize("gpu, launcher", [(True, "accelerate.commands.launch"), (False, "torch.distributed.run")])
def test_the_command_names_the_launcher_the_processes_and_the_training(gpu, launcher):
    found = command(["clip", "text"], 4, gpu)
    assert found[:3] == [sys.executable, "-m", launcher] and "4" in found
    assert found[-4:] == ["-m", "ovs_lite.train", "clip", "text"]
