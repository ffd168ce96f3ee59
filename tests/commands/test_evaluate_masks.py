"""`ovs-lite evaluate panoptic` and `promptable`: their tables, their files, their mistakes."""

import json

import pytest

from kit.evaluate_commands import COMMANDS, evaluate_all
from kit.processes import launch
from kit.prompting import make_segmenter
from kit.proposers import make_proposer
from ovs_lite.checkpoints import load_method
from ovs_lite.cli import main
from ovs_lite.config import get_profile
from ovs_lite.data.record import load_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.panoptic import evaluate_panoptic, predictor
from ovs_lite.evaluation.promptable import evaluate_promptable
from ovs_lite.iconworld.build import build_set


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    build_set("icon-coco", get_profile("smoke").data, root, progress=False)
    return root


@pytest.fixture
def command(world, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(world))
    return lambda kind, *words: main(["evaluate", kind, "--profile", "smoke", *map(str, words)])


@pytest.fixture(scope="module")
def records(world):
    return load_split(world / "icon-smoke/icon-coco/val").select(range(3))


def test_panoptic_quality_is_that_of_the_function(command, records, tmp_path, capsys):
    given = {"object_threshold": 0.1, "overlap_threshold": 0.6}
    words = ("--object-threshold", 0.1, "--overlap-threshold", 0.6, "--images", 3, "--out", tmp_path / "r.json")
    assert command("panoptic", "--method", "uniovseg", *words) == 0
    vocabulary = load_vocabulary("icon-coco")
    report = evaluate_panoptic(predictor(load_method("uniovseg"), vocabulary, given), records, vocabulary)
    written = json.loads((tmp_path / "r.json").read_text())["sets"]["icon-coco"]
    lines, table = capsys.readouterr().out.splitlines(), report.table()
    for line, group in zip(lines[2:], ("all", "things", "stuff"), strict=True):
        scores = [f"{100 * table[group][key]:.2f}" for key in ("PQ", "SQ", "RQ")]
        assert line == f"| icon-coco | 3 | {group} | {scores[0]} | too few images | {scores[1]} | {scores[2]} |"
        assert written["groups"][group]["PQ"] == pytest.approx(table[group]["PQ"])
    assert written["protocol"]["method"] == "uniovseg" and written["protocol"]["object_threshold"] == 0.1
    assert 0 < len(written["classes"]) <= len(vocabulary)


def test_promptable_iou_is_that_of_the_function(command, records, tmp_path, capsys):
    segmenter = make_segmenter()
    segmenter.save(tmp_path / "p.safetensors")
    words = ("--grid", 3, "--images", 3, "--out", tmp_path / "r.json", "--kind", "1-box", "1-point")
    assert command("promptable", "--masks", tmp_path / "p.safetensors", *words) == 0
    report = evaluate_promptable(segmenter.masks_at, records, look=segmenter.look, grid=3)
    written = json.loads((tmp_path / "r.json").read_text())["sets"]["icon-coco"]
    for kind in ("1-box", "1-point"):
        assert written["iou"][kind]["value"] == pytest.approx(report.iou(kind).value, abs=1e-6)
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith(f"| icon-coco | 3 | {report.masks} | {100 * report.iou('1-box').value:.1f} (")


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("panoptic", ["--method", "maskclip", "--images", "1"], "expected one whose masks are of single things"),
        ("promptable", ["--method", "maskclip"], "expected one that takes points and boxes"),
        ("promptable", [], "got neither of --method and --masks"),
        ("promptable", ["--method", "uniovseg", "--masks", "a.safetensors"], "got both of --method and --masks"),
        ("promptable", ["--masks", "none.safetensors"], "no such proposals"),
    ],
)
def test_mistakes_are_reported(command, kind, words, message, capsys):
    assert command(kind, *words) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_masks_that_answer_no_prompts_are_refused(command, tmp_path, capsys):
    make_proposer("openseg-proposals").save(tmp_path / "p.safetensors")
    assert command("promptable", "--masks", tmp_path / "p.safetensors") == 2
    assert "got weights of openseg-proposals, expected those that answer prompts" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_what_one_does_and_leave_no_counts(world, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("OVS_DATA", str(world))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    evaluate_all(str(tmp_path / "one"))
    done = launch("kit.evaluate_commands.evaluate_all", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    files = [f"{kind}.json" for kind in COMMANDS]
    for name in files:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(files), "no counts are left"
    assert done.stdout.count("95 % interval") == capfd.readouterr().out.count("95 % interval") == 2, "one prints"
