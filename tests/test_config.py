"""Profiles are data; overrides are strict; folders follow the environment and the project."""

import dataclasses
from pathlib import Path

import pytest


    PROFILES,
    cache_root,
    data_root,
    flatten,
    get_profile,
    override,
    override_from_yaml,
    runs_root,
    to_dict,
)


def test_profiles_carry_their_own_names_and_are_frozen():
    assert [profile.name for profile in PROFILES.values()] == list(PROFILES) == ["smoke", "lite", "paper"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_profile("lite").seed = 1


def test_unknown_profile_lists_the_valid_ones():
    with pytest.raises(ValueError, match="smoke, lite, paper; did you mean 'smoke'"):
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
    ],
)
def test_override_is_strict(changes, message):
    with pytest.raises(ValueError, match=message):
        override(get_profile("lite"), changes)


def test_yaml_may_be_nested_or_dotted(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text("data:\n  val_scenes: 8\nclip.vit: ViT-B-16\n")
    changed = override_from_yaml(get_profile("lite"), path)
    assert (changed.data.val_scenes, changed.clip.vit) == (8, "ViT-B-16")
    path.write_text("- a list\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        override_from_yaml(get_profile("lite"), path)


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
