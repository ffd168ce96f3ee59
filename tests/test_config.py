"""Profiles are data; overrides are strict; folders follow the environment and the project."""

import dataclasses
from pathlib import Path

import pytest

from ovs_lite.config import (
    PROFILES,
    LoopConfig,
    field_help,
    flatten,
    get_profile,
    override,
    override_from_file,
    to_dict,
)
from ovs_lite.files import cache_root, data_root, runs_root
from ovs_lite.methods.tcl.config import TclConfig


def test_profiles_carry_their_own_names_and_are_frozen():
    assert [profile.name for profile in PROFILES.values()] == list(PROFILES) == ["smoke", "lite", "photo", "paper"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_profile("lite").seed = 1


def test_unknown_profile_lists_the_valid_ones():
    with pytest.raises(ValueError, match="smoke, lite, photo, paper; did you mean 'smoke'"):
        get_profile("smok")


def test_override_changes_only_what_it_names():
    before = get_profile("lite")
    after = override(before, {"data.val_scenes": 8, "seed": 3})
    assert (after.data.val_scenes, after.seed) == (8, 3)
    assert dict(flatten(to_dict(after))) == dict(flatten(to_dict(before))) | {"data.val_scenes": 8, "seed": 3}
    assert before == PROFILES["lite"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.val_scene": 8}, "did you mean 'val_scenes'"),
        ({"date": 8}, "expected one of name, data"),
        ({"data.val_scenes": "8"}, "expected int"),
        ({"data.val_scenes": True}, "expected int"),
        ({"seed.deep": 1}, "has no parts"),
        ({"data": 3}, "expected DataConfig"),
        ({"clip.name": 3}, "expected str"),
    ],
)
def test_override_is_strict(changes, message):
    with pytest.raises(ValueError, match=message):
        override(get_profile("lite"), changes)


def test_a_file_may_be_nested_or_dotted_and_its_errors_name_it(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text("data:\n  val_scenes: 8\nclip.name: ViT-B-16\n")
    changed = override_from_file(get_profile("lite"), path)
    assert (changed.data.val_scenes, changed.clip.name) == (8, "ViT-B-16")
    for text, message in (("- a list\n", "expected a mapping"), ("a: [", "not a readable YAML"), ("b: 1", "key 'b'")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"changes.yaml: .*{message}"):
            override_from_file(get_profile("lite"), path)
    with pytest.raises(FileNotFoundError, match="no such configuration file"):
        override_from_file(get_profile("lite"), tmp_path / "none.yaml")


def test_changes_apply_together_and_fields_of_the_loop_need_no_prefix():
    """Neither change alone would pass the dataclass's own check."""
    none = {f"{term}_weight": 0.0 for term in ("image", "feature", "area", "smooth")}
    others = {"contrastive_weight": 1.0, "steps": 7, "loop.lr": 1, "crop_area": [0.5, 1]}
    changed = override(TclConfig(), none | others)
    assert (changed.loop.steps, changed.loop.lr, changed.crop_area) == (7, 1.0, (0.5, 1.0))
    with pytest.raises(ValueError, match="not all 0"):
        override(TclConfig(), none)
    with pytest.raises(ValueError, match=r"got \[0.5\] for 'crop_area'"):
        override(TclConfig(), {"crop_area": [0.5]})


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    """PyYAML reads 1e-05 as a string."""
    (tmp_path / "a.yaml").write_text("loop: {lr: 1e-05, weight_decay: 2.5E-3}")
    loop = override_from_file(TclConfig(), tmp_path / "a.yaml").loop
    assert (loop.lr, loop.weight_decay) == (1e-5, 2.5e-3)
    (tmp_path / "a.yaml").write_text("loop: {lr: fast}")
    with pytest.raises(ValueError, match="got 'fast' for 'loop.lr', expected float"):
        override_from_file(TclConfig(), tmp_path / "a.yaml")


def test_the_help_of_a_field_is_its_comment():
    found = field_help(LoopConfig)
    assert found["warmup"] == "steps of linear warm-up"
    assert found.keys() == {item.name for item in dataclasses.fields(LoopConfig)}


@pytest.mark.parametrize("change", [
    {"steps": 0}, {"accumulation": 0}, {"log_every": -1}, {"precision": "fp8"}, {"schedule": "cosin"}, {"ema": 1.0},
])  # fmt: skip
def test_a_loop_that_cannot_run_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        LoopConfig(**{"steps": 1} | change)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    for variable, folder in (("OVS_DATA", data_root), ("OVS_RUNS", runs_root), ("OVS_CACHE", cache_root)):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert folder() == tmp_path / variable


def test_folders_are_the_projects_also_inside_its_notebooks(monkeypatch, tmp_path):
    monkeypatch.delenv("OVS_DATA", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        assert data_root().resolve() == (tmp_path / "data").resolve()


def test_folders_outside_a_project_are_the_working_ones(monkeypatch, tmp_path):
    monkeypatch.delenv("OVS_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert runs_root() == Path("runs")
