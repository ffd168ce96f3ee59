"""What tests of commands share."""

import json

import pytest

from ovs_lite.cli import main
from ovs_lite.config import get_profile
from ovs_lite.iconworld.build import build_set


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data folder with smoke-size sets, one without and one with a background."""
    root = tmp_path_factory.mktemp("data")
    for name in ("icon-voc20", "icon-voc21"):
        build_set(name, get_profile("smoke").data, root, progress=False)
    return root


@pytest.fixture
def evaluate(world, monkeypatch, tmp_path):
    """`ovs-lite evaluate ...` on the smoke sets; gives the JSON that it wrote."""
    monkeypatch.setenv("OVS_DATA", str(world))
    monkeypatch.setenv("OVS_RUNS", str(tmp_path / "runs"))

    def run(*words):
        words = [*map(str, words), "--profile", "smoke", "--out", str(tmp_path / "cell.json")]
        assert main(["evaluate", *words]) == 0
        return json.loads((tmp_path / "cell.json").read_text())

    return run
