"""Training runs from a notebook: in this process or in several, with the resolved configuration; failures reported."""

import sys

import pytest
import torch

from kit.runs import rows
from ovs_lite.config import get_profile, override
from ovs_lite.iconworld.build import build_set
from ovs_lite.methods import get_recipe
from ovs_lite.train.launch import command, launch

NAME = "openseg-proposals"
TINY = {"steps": 2, "batch": 4, "channels": 16, "queries": 6, "layers": 1, "heads": 2, "image_size": 64, "log_every": 1}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run of two steps on the smoke scenes; its batch and rescaling are those of no preset."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    build_set("icon-coco", get_profile("smoke").data, tmp_path / "data", progress=False)
    return override(get_recipe(NAME).presets["smoke"], {**TINY, "rescale": (0.5, 0.5)})


def test_one_process_trains_here_calls_back_and_returns_what_was_trained(config, tmp_path):
    seen = []
    proposer = launch(NAME, config, tmp_path / "run", lambda step, row: seen.append(step), processes=1)
    assert seen == [0, 1] and [row["step"] for row in rows(tmp_path / "run")] == [0, 1]
    assert proposer.config == config and not proposer.training
    assert proposer.propose(torch.zeros(40, 24, 3, dtype=torch.uint8).numpy()).shape == (6, 40, 24)


@pytest.mark.slow
def test_two_processes_get_the_resolved_configuration_and_train_the_same(config, tmp_path, capsys):
    """No preset's and no flag's: an ablation's settings travel whole."""
    alone = launch(NAME, config, tmp_path / "one", processes=1)
    both = launch(NAME, config, tmp_path / "two", processes=2)
    assert "proposals.safetensors" in capsys.readouterr().out and both.config == alone.config == config
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_failure_is_reported_with_its_last_lines(config, tmp_path):
    broken = override(config, {"backbone": "resnet_of_dreams"})
    with pytest.raises(RuntimeError, match="(?s)2 processes ended with [12]; .*expected a name of timm.list_models"):
        launch(NAME, broken, tmp_path / "run", processes=2)


@pytest.mark.parametrize("gpu, launcher", [(True, "accelerate.commands.launch"), (False, "torch.distributed.run")])
def test_the_command_names_the_launcher_the_processes_and_the_recipe(gpu, launcher):
    found = command(["clip", "text"], 4, gpu)
    assert found[:3] == [sys.executable, "-m", launcher] and "4" in found
    assert found[-4:] == ["-m", "ovs_lite.train", "clip", "text"]
