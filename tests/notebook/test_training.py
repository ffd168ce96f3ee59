"""What a notebook is told to change is what it trains, and what its folder says: by `setup`, by file, by `config`."""

import json

import pytest

import ovs_lite.notebook as notebook
from kit.records import shape_pairs
from ovs_lite.config import get_profile
from ovs_lite.data.record import write_split
from ovs_lite.iconworld.build import split_folder


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Seven pairs where the smoke profile's icon-caption would lie."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    folder = split_folder(tmp_path / "data", get_profile("smoke").data, "icon-caption", "train")
    write_split(shape_pairs(7), folder, progress=False)
    return tmp_path


def saved(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_change_in_setup_is_trained_and_saved(world):
    """Batch 2 once became the profile's 8 on the way to the training command."""
    seen = []
    run = notebook.setup("smoke", 5, world / "04_x", **{"tcl.batch": 2, "tcl.steps": 1, "data.val_scenes": 5})
    model = run.train("tcl", on_step=lambda step, row: seen.append(step))
    of_run = saved(world / "04_x" / "tcl")
    assert (of_run["batch"], of_run["loop"]["steps"], of_run["loop"]["seed"], seen) == (2, 1, 5, [0])
    assert saved(world / "04_x")["recipes"]["tcl"]["batch"] == 2 and model.name == "tcl" and not model.training


def test_an_ablation_is_one_call(world):
    run = notebook.setup("smoke", 0, world / "04_x", **{"tcl.steps": 1, "tcl.batch": 2})
    config = run.config("tcl", area_weight=0.0, lr=0.5)
    assert (config.area_weight, config.loop.lr, config.batch) == (0.0, 0.5, 2)
    run.train("tcl", config, out="ablation/no-area")
    assert saved(world / "04_x" / "ablation" / "no-area")["area_weight"] == 0.0


def test_a_file_changes_profile_and_recipes_and_setup_wins(world, monkeypatch):
    (world / "mine.yaml").write_text("data: {val_scenes: 3}\ntcl:\n  batch: 4\n  loop: {steps: 9}\n")
    monkeypatch.setenv("OVS_CONFIG", str(world / "mine.yaml"))
    run = notebook.setup("smoke", 0, world / "04_x", **{"tcl.batch": 2})
    config = run.config("tcl")
    assert (run.profile.data.val_scenes, config.batch, config.loop.steps) == (3, 2, 9)


@pytest.mark.parametrize("key", ["tcl.bacth", "tcl.loop.step"])
def test_a_wrong_key_of_a_recipe_is_an_error_in_setup(key, tmp_path):
    with pytest.raises(ValueError, match="did you mean"):
        notebook.setup("smoke", 0, tmp_path, **{key: 2})
