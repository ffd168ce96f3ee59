"""`ovs-lite evaluate grid`: its table, its file, where its masks and names come from, its mistakes."""

import json

import numpy as np
import pytest

from kit.proposers import make_proposer
from ovs_lite.checkpoints import load_method
from ovs_lite.cli import main
from ovs_lite.clip import load_clip
from ovs_lite.commands.evaluate_grid import CLASSIFIERS, UNTRAINED, mask_source
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.grid import evaluate_grid, label_maps
from ovs_lite.methods import METHODS, get_method, method_class
from ovs_lite.methods.registry import RECIPES, mask_methods
from ovs_lite.regions.sources import BASELINES, CLASSICAL


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(world))
    return lambda *words: main(["evaluate", "grid", "--profile", "smoke", *map(str, words)])


@pytest.fixture
def records(world):
    return load_split(world / "icon-smoke/icon-voc20/val").select(range(3))


def test_the_cells_are_those_of_the_function(command, records, tmp_path, capsys):
    out = tmp_path / "grid.json"
    words = ("--masks", "truth", "grid", "slic-merges", "--classifier", "crops", "oracle", "vote:naclip")
    assert command(*words, "--budget", 9, "--images", 3, "--templates", "single", "--out", out) == 0
    clip, vocabulary = load_clip(), load_vocabulary("icon-voc20")
    maps = {"vote": label_maps(get_method("naclip", clip), vocabulary, "single")}
    sources = {"grid": BASELINES["grid"], "slic": CLASSICAL["SLIC merges"]}
    classifiers = ["masked crops", "oracle"]
    grid = evaluate_grid(records, clip, vocabulary, sources, classifiers, "single", 9, maps)
    expected = [(row, column) for row in ("ground truth", "grid", "slic") for column in (*classifiers, "vote")]
    called = [
        (row, column) for row in ("truth", "grid", "slic-merges") for column in ("crops", "oracle", "vote:naclip")
    ]
    written, lines = json.loads(out.read_text()), capsys.readouterr().out.splitlines()
    assert (written["budget"], written["templates"], written["clip"]) == (9, "single", "ViT-Lite-8")
    cells = written["sets"]["icon-voc20"]["cells"]
    assert len(lines) == 2 + len(cells) == 2 + 9
    for line, cell, own, names in zip(lines[2:], cells, expected, called, strict=True):
        miou = grid.table[own[0]][own[1]]
        assert (cell["masks"], cell["classifier"]) == names and cell["miou"] == pytest.approx(miou)
        shown = f"{100 * miou:.2f} | too few images | {100 * cell['pixel_accuracy']:.2f}"
        assert line == f"| icon-voc20 | 3 | {names[0]} | {names[1]} | {shown} |"
    assert cells[1]["miou"] == 1 and len({cell["miou"] for cell in cells}) > 5


def test_one_cell_without_the_ground_truth(command, capsys):
    assert command("--masks", "superpixels", "--classifier", "oracle", "--images", 2) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_learned_masks_are_shipped_ones_or_a_files(command, records, tmp_path, capsys):
    image = np.array(records[0]["image"])
    for name, method in (("maskformer", "ovseg"), ("openseg", "openseg"), ("uniovseg-masks", "uniovseg")):
        found = mask_source(name)(image, 5)
        assert found.shape == (5, *image.shape[:2])
        assert (found == load_method(method).proposer.propose(image, 5)).all()
    proposer = make_proposer("openseg-proposals")
    proposer.save(tmp_path / "p.safetensors")
    assert (mask_source(str(tmp_path / "p.safetensors"))(image, 4) == proposer.propose(image, 4)).all()
    assert command("--masks", tmp_path / "p.safetensors", "--classifier", "oracle", "--images", 1) == 0
    assert f"| {tmp_path / 'p.safetensors'} | oracle |" in capsys.readouterr().out


def test_who_brings_masks_says_so():
    found = mask_methods()
    assert all(method in METHODS and (name in METHODS or name in RECIPES) for name, method in found.items())
    assert found["openseg-proposals"] == "openseg" and found["clip-proposals"] == "clip-proposals"
    pixel_based = [name for name in METHODS if name not in found]
    assert "maskclip" in pixel_based and "tcl" in pixel_based
    for name in set(found.values()):
        assert load_method(name).proposer.recipe == method_class(name).masks_of
    with pytest.raises(ValueError, match="got the method maskclip, expected a mask-based one"):
        load_method("maskclip").proposer  # noqa: B018


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--masks", "truht", "--classifier", "crops"], "got masks 'truht', expected one of truth, classical"),
        (["--masks", "maskclip", "--classifier", "crops"], "got masks 'maskclip', expected one of truth"),
        (["--masks", "none.safetensors", "--classifier", "crops"], "none.safetensors: no such proposals"),
        (["--masks", "truth", "--classifier", "crop"], "did you mean 'crops'"),
        (["--masks", "truth", "--classifier", "vote"], "oracle-by-purity, vote:METHOD"),
        (["--masks", "truth", "--classifier", "vote:naclipp"], "did you mean 'naclip'"),
        (["--masks", "truth", "--classifier", "crops", "--budget", "0"], "got --budget 0, expected at least 1"),
        (["--masks", "truth", "--classifier", "vote:naclip", "--set", "icon-voc21"], "names no threshold"),
        (["--masks", "truth", "--classifier", "crops", "--out", "x.txt"], "expected a file name that ends in"),
        (["--masks", "truth", "--classifier", "crops", "--set", "icon-stuff"], "build it with: ovs-lite data build"),
    ],
)
def test_mistakes_are_reported_in_one_line(command, words, message, capsys):
    assert command(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith("ovs-lite: ") and message in told and told.count("\n") == 1


def test_the_help_names_sources_and_classifiers(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("--help")
    text = capsys.readouterr().out
    unwrapped = "".join(text.split())
    assert end.value.code == 0 and all(name in unwrapped for name in (*UNTRAINED, *CLASSIFIERS, "vote:METHOD"))
    assert "examples:\n  ovs-lite evaluate grid --masks truth --classifier crops" in text
