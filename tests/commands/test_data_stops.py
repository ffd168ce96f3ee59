"""SIGTERM while data is drawn or prepared: exit code 0, nothing half-written, and the same command makes the rest."""

import signal

import pytest

from kit.public_sets import label_map, picture
from ovs_lite import cli
from ovs_lite.data import prepare
from ovs_lite.iconworld import build


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def stopped(capsys, *words):
    """What a command says that ends by SystemExit(0); signals are then what they were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        cli.main([*words])
    assert end.value.code == 0 and signal.getsignal(signal.SIGTERM) is before
    return capsys.readouterr().err


def splits(folder):
    """Complete splits -> when their manifests were written; and nothing else lies there but locks."""
    manifests = {path.parent.name: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}
    hidden = [path.name for path in folder.rglob(".*") if not path.name.endswith(".lock")]
    assert not hidden, "nothing half-written"
    return manifests


def signalled(function, wanted):
    """(The function, which once, before its second record, sends the signal where `wanted` says so of its arguments;
    what holds something when it was sent)."""
    calls = []

    def watched(*words):
        for number, record in enumerate(function(*words)):
            if number == 1 and wanted(*words) and not calls:
                calls.append(number)
                signal.raise_signal(signal.SIGTERM)
            yield record

    return watched, calls


def test_data_build_keeps_what_is_complete(folder, monkeypatch, capsys):
    watched, calls = signalled(build.iter_records, lambda one, *_: one.split == "val")
    monkeypatch.setattr(build, "iter_records", watched)
    words = ("data", "build", "--profile", "smoke", "--only", "icon-coco")
    assert "keeps the splits that are complete" in stopped(capsys, *words) and calls
    first = splits(folder)
    assert set(first) == {"train"}
    assert cli.main([*words]) == 0
    assert set(splits(folder)) == {"train", "val"} and splits(folder)["train"] == first["train"]


def test_data_prepare_keeps_what_is_complete(folder, tmp_path, monkeypatch, capsys):
    base = tmp_path / "root" / "ADEChallengeData2016"
    for split, short in (("training", "train"), ("validation", "val")):
        for number in (1, 2, 3):
            name = f"ADE_{short}_{number:08d}"
            picture(base / "images" / split / f"{name}.jpg")
            label_map(base / "annotations" / split / f"{name}.png", (0, 1, 2, 150, 150, 0))
    reader = prepare.RECORDS["label_maps"]
    watched, calls = signalled(reader, lambda source: "validation" in source.split["images"])
    monkeypatch.setitem(prepare.RECORDS, "label_maps", watched)
    words = ("data", "prepare", "ade150", "--from", str(tmp_path / "root"), "--splits", "train", "val", "--limit", "3")
    assert "keeps the splits that are complete" in stopped(capsys, *words) and calls
    first = splits(folder)
    assert set(first) == {"train"}
    assert cli.main([*words]) == 0
    assert set(splits(folder)) == {"train", "val"} and splits(folder)["train"] == first["train"]
