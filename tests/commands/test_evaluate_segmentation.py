"""`ovs-lite evaluate segmentation`: its table, its file, its options, its mistakes."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kit.colour_methods import RECORDS, Likeness, Plain
from kit.processes import environment
from kit.vocabularies import FOUR, GROUND
from ovs_lite.cli import main
from ovs_lite.clip import load_clip
from ovs_lite.commands.evaluate_segmentation import parse_options
from ovs_lite.commands.segmentation_tables import as_markdown, class_table, groups
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.evaluation.run import evaluate_set
from ovs_lite.evaluation.segmentation import evaluate_segmentation
from ovs_lite.methods import get_method
from ovs_lite.methods.with_pamr import WithPamr


@pytest.fixture
def command(world, monkeypatch, tmp_path):
    monkeypatch.setenv("OVS_DATA", str(world))
    monkeypatch.setenv("OVS_RUNS", str(tmp_path / "runs"))
    return lambda *words: main(["evaluate", "segmentation", "--profile", "smoke", *map(str, words)])


def test_the_command_prints_a_table_and_writes_the_same_numbers(command, world, tmp_path, capsys):
    out = tmp_path / "deep" / "report.json"
    words = ("--set", "icon-voc20", "icon-voc21", "--images", 4, "--background", 0.2, 0.26, "--templates", "single")
    assert command(*words, "--out", out) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "icon-voc21: 100%" in printed.err and "4/4" in printed.err

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    written = json.loads(out.read_text(), parse_constant=refuse)
    assert (written["clip"], written["pretrained"], written["checkpoint"]) == ("ViT-Lite-8", "lite", None)
    assert list(written["sets"]) == ["icon-voc20", "icon-voc21"]
    method = get_method("maskclip", load_clip())
    for line, (name, facts) in zip(lines[2:4], written["sets"].items(), strict=True):
        records = load_split(world / f"icon-smoke/{name}/val").select(range(4))
        background = {"background": facts["background"]} if name == "icon-voc21" else {}
        report = evaluate_segmentation(method, records, load_vocabulary(name), templates="single", **background)
        scores, bound = report.scores, report.scores_by("target")
        assert (facts["miou"], facts["pixel_accuracy"]) == pytest.approx((scores.miou, scores.pixel_accuracy), abs=1e-4)
        shown = "-" if facts["background"] is None else f"{facts['background']:g}"
        percent = f"{100 * facts['miou']:.2f} | too few images | {100 * bound.miou:.2f}"
        percent += f" | {100 * facts['pixel_accuracy']:.2f}"
        assert facts["miou_by_absent"] == pytest.approx({"union": scores.miou, "target": bound.miou})
        assert facts["interval"] == [None, None], "NaN is null"
        assert line == f"| {name} | 4 | {percent} | single | 128/128/64 | {shown} |"
        assert facts["images"] == 4 and facts["pixels"] == scores.pixels and facts["absent"] == "union"
        assert facts["protocol"]["method"] == "maskclip" and facts["folder"].endswith(f"{name}/val")
        assert list(facts["iou"]) == list(load_vocabulary(name).names)
        assert [value is None for value in facts["iou"].values()] == np.isnan(scores.iou).tolist()
    compared = written["sets"]["icon-voc21"]["by_background"]
    assert list(compared) == ["0.2", "0.26"] and max(compared.values()) == written["sets"]["icon-voc21"]["miou"]
    assert lines[4:7] == ["", "| background of icon-voc21 | mIoU |", "| --- | ---: |"]
    assert lines[7:9] == [f"| {cut} | {100 * value:.2f} |" for cut, value in compared.items()]
    hashes = [facts["card"]["hash"] for facts in written["sets"].values()]
    assert f"| card | {hashes[0]} | {hashes[1]} |" in lines and len(set(hashes)) == 2
    assert lines[lines.index("| set | classes | of them | mIoU |") + 2].startswith("| icon-voc20 | seen | 14 | ")


def test_the_command_takes_a_folder_another_clip_and_grounding(command, world, tmp_path, capsys):
    data = shutil.copytree(world / "icon-smoke/icon-voc20/val", tmp_path / "copy")
    words = ("--data", data, "--images", 3, "--method", "clip-cam", "--clip", "ConvNeXt-Lite")
    assert command(*words, "--out", tmp_path / "free.json") == 0
    assert command(*words, "--present-only", "--out", tmp_path / "bound.json") == 0
    free, bound = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("free", "bound"))
    assert free["clip"] == "ConvNeXt-Lite" and bound["sets"]["icon-voc20"]["protocol"]["present_only"] is True
    assert bound["sets"]["icon-voc20"]["miou"] >= free["sets"]["icon-voc20"]["miou"]
    assert bound["sets"]["icon-voc20"]["folder"] == str(data)
    assert capsys.readouterr().out.count("| icon-voc20 | 3 |") == 2


def test_options_pamr_and_the_methods_own_background_reach_the_evaluation(command, world, tmp_path):
    def measured(name, *words):
        assert command(*words, "--images", 3, "--out", tmp_path / f"{name}.json") == 0
        return next(iter(json.loads((tmp_path / f"{name}.json").read_text())["sets"].values()))

    bare = measured("bare", "--method", "tcl", "--set", "icon-voc21", "--option", "refine=false")
    whole = measured("whole", "--method", "tcl", "--set", "icon-voc21")
    assert bare["protocol"]["options"] == {"refine": False} and whole["protocol"]["options"] == {}
    assert bare["miou"] != whole["miou"] and (bare["background"], whole["background"]) == (0.5, 0.4)
    clip, records = load_clip(), load_split(world / "icon-smoke/icon-voc20/val").select(range(3))
    refined = evaluate_segmentation(WithPamr(get_method("clip-cam", clip)), records, load_vocabulary("icon-voc20"))
    found = measured("pamr", "--method", "clip-cam", "--pamr")
    assert found["miou"] == pytest.approx(refined.scores.miou) and found["protocol"]["method"] == "clip-cam + PAMR"


def test_queries_and_synonyms_reach_the_evaluation(command, tmp_path):
    (tmp_path / "names.txt").write_text("cat|kitten\ndog|puppy\n")
    assert command("--queries", f"@{tmp_path / 'names.txt'}", "--images", 2, "--out", tmp_path / "a.json") == 0
    assert command("--synonyms", "--images", 2, "--out", tmp_path / "b.json") == 0
    written = [json.loads((tmp_path / name).read_text())["sets"]["icon-voc20"] for name in ("a.json", "b.json")]
    given, own = (facts["protocol"]["queries"] for facts in written)
    assert given == ["cat|kitten", "dog|puppy"] and own == load_vocabulary("icon-voc20").queries()


def test_backgrounds_are_listed_where_there_are_several():
    one, two = (evaluate_segmentation(Plain(), RECORDS, GROUND, background=cuts) for cuts in (-1, (-1, -0.5)))
    assert len(as_markdown({"one": one}).splitlines()) == 3
    assert as_markdown({"one": one, "two": two}).splitlines()[4:6] == ["", "| background of two | mIoU |"]


def test_a_metric_over_nothing_is_an_error(command, world, tmp_path, capsys):
    voids = [dict(row, segments_info=[]) for row in load_split(world / "icon-smoke/icon-voc20/val").select(range(2))]
    for row in voids:
        row["segments"] = np.zeros(row["image"].size, np.int64)
    write_split(voids, tmp_path / "void", progress=False)
    assert command("--data", tmp_path / "void", "--out", tmp_path / "r.json") == 2
    assert "without one labelled pixel of icon-voc20" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
    with pytest.raises(ValueError, match="got no record"):
        evaluate_segmentation(Likeness(), [], FOUR).scores  # noqa: B018


def test_options_are_json_of_the_methods_own_kinds():
    kind = SimpleNamespace(name="toy", scores=lambda self, features, text, refine=True, weight=0.3, mode=None: 0)
    words = ["refine=false", "weight=1", 'mode="a=b"']
    assert parse_options(words, kind) == {"refine": False, "weight": 1, "mode": "a=b"}
    assert parse_options([], kind) == {}
    for word, message in (
        ("refine", "expected KEY=VALUE in JSON"), ("weight=high", "expected KEY=VALUE in JSON"),
        ("refine=1", "expected a value like true"), ('weight="1"', "expected a value like 0.3"),
        ("weight=true", "expected a value like 0.3"), ("wait=1", "expected one of refine, weight, mode for toy"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            parse_options([word], kind)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "mask-clip"], "did you mean 'maskclip'?"),
        (["--set", "icon-voc22"], "got vocabulary 'icon-voc22', expected one of"),
        (["--set", "icon-context59"], "build it with: ovs-lite data build"),
        (
            ["--set", "icon-voc21"],
            "got no --background, expected one: the score below which a pixel is background in icon-voc21",
        ),
        (["--background", "0.4"], "got --background [0.4], expected none in these sets"),
        (["--checkpoint", "x.safetensors"], "maskclip has no trained weights of its own"),
        (["--method", "clip-cam", "--option", "refine=false"], "expected one of none for clip-cam"),
        (["--data", "x", "--set", "icon-voc20", "icon-stuff"], "got --data and 2 sets, expected the one --set"),
        (["--images", "0"], "got --images 0, expected at least 1"),
        (["--out", "scores.txt"], "got --out scores.txt, expected a file name that ends in .json or .md"),
        (["--clip", "ViT-Lite-9"], "got CLIP model 'ViT-Lite-9'"),
        (["--set", "icon-voc21", "--background", "nan"], "got --background [nan], expected numbers"),
        (["--queries", "catt|kitten"], "got class 'catt', expected one of the 20 names of 'icon-voc20'"),
        (["--queries", "@none.txt"], "none.txt: no such file of queries"),
        (["--protocol", "sclipp"], "did you mean 'sclip'?"),
        (["--against", "maskclip"], "got maskclip twice, expected --against another method"),
        (["--against", "tcll"], "did you mean 'tcl'?"),
        (["--set", "icon-voc21", "--protocol", "ovseg"], "got no --background, expected one"),
        (["--queries", "cat", "--synonyms"], "got --queries and --synonyms, expected one of them"),
        (["--pretrained", "none.safetensors"], "none.safetensors: no such checkpoint"),
    ],
)
def test_mistakes_are_told_in_one_line(command, monkeypatch, capsys, words, message):
    if words[0] not in ("--clip", "--pretrained"):
        monkeypatch.setattr("ovs_lite.methods.trained.load_clip", None)  # reported before a model is loaded
    assert command(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith("ovs-lite: ") and message in told and told.count("\n") == 1


def test_the_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("--help")
    assert end.value.code == 0 and "examples:\n  ovs-lite evaluate segmentation --method" in capsys.readouterr().out


def test_a_method_by_name_is_the_segmentation_command(evaluate, tmp_path, capsys):
    first = evaluate("clip-cam", "--set", "icon-voc20", "--images", 3)
    printed = capsys.readouterr().out
    assert evaluate("segmentation", "--method", "clip-cam", "--set", "icon-voc20", "--images", 3) == first
    assert capsys.readouterr().out == printed and not list((tmp_path / "runs").glob("*")), "no counts remain"
    with pytest.raises(SystemExit):
        main(["evaluate", "clip-cam", "--help"])
    assert "ovs-lite evaluate tcl --set icon-voc20 --protocol tcl" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "clip-camera"])
    assert end.value.code == 2 and "clip-cam" in capsys.readouterr().err


def test_protocols_reach_the_evaluation_and_the_card(evaluate, world):
    found = evaluate("maskclip", "--set", "icon-voc21", "--images", 3, "--protocol", "sclip")["sets"]["icon-voc21"]
    card, vocabulary = found["card"], load_vocabulary("icon-voc21")
    assert (card["softmax_scale"], card["least_area"], card["background"]) == (65, 0.1, [0.1])
    assert (card["short_side"], card["window"], card["stride"], card["interpolation"]) == (96, 64, 32, "bilinear")
    assert "grass" in card["background_words"] and card["templates"] == "imagenet80" and card["protocol"] == "sclip"
    records = load_split(world / "icon-smoke/icon-voc21/val").select(range(3))
    report = evaluate_segmentation(get_method("maskclip", load_clip()), records, vocabulary, protocol="sclip")
    assert found["miou"] == pytest.approx(report.scores.miou) and found["background"] == 0.1
    changed = evaluate("maskclip", "--set", "icon-voc21", "--images", 3, "--protocol", "sclip", "--background", 0.2)
    assert changed["sets"]["icon-voc21"]["card"]["hash"] != card["hash"]


def test_the_protocols_convention_for_absent_classes_makes_the_score(evaluate):
    words = ("maskclip", "--set", "icon-voc20", "--images", 12, "--against", "clip-cam", "--protocol")
    found = {name: evaluate(*words, name) for name in ("uniovseg", "ovseg")}
    for name, absent in (("uniovseg", "target"), ("ovseg", "union")):
        one, other = found[name]["sets"]["icon-voc20"], found[name]["against"]["sets"]["icon-voc20"]
        assert one["card"]["absent"] == absent and one["miou"] == one["miou_by_absent"][absent]
        difference = found[name]["difference"]["icon-voc20"]["value"]
        assert difference == pytest.approx(one["miou_by_absent"][absent] - other["miou_by_absent"][absent])
        assert one["miou_by_absent"]["union"] != one["miou_by_absent"]["target"]


def test_pamr_is_heeded_whatever_the_protocol_says_and_keeps_its_options(evaluate):
    words = ("--set", "icon-voc20", "--images", 2)
    card = evaluate("tcl", *words, "--protocol", "tcl-without-pamr", "--pamr")["sets"]["icon-voc20"]["card"]
    assert card["options"]["refine"] is True and card["refinement"] == "the method's own"
    card = evaluate("ovseg", *words, "--protocol", "ovseg", "--pamr")["sets"]["icon-voc20"]["card"]
    assert card["options"]["ensemble_weight"] == 0.6 and card["refinement"] == "PAMR"


def test_groups_of_seen_and_unseen_classes_are_those_of_the_vocabulary(evaluate):
    vocabulary = load_vocabulary("icon-voc21")
    found = groups(vocabulary, vocabulary.names)
    assert set(found["seen"]) | set(found["unseen"]) == set(vocabulary.names) - {
        vocabulary.names[vocabulary.background]
    }
    assert set(groups(vocabulary, ("cat",))) <= {"seen", "unseen"} and groups(FOUR, FOUR.names) == {}
    report = evaluate_segmentation(Plain(), RECORDS, FOUR)
    iou = dict(zip(report.names, report.scores.iou, strict=True))
    assert report.group_miou(["red", "blue"]) == pytest.approx((iou["red"] + iou["blue"]) / 2)
    lines = class_table("toy", report).splitlines()[2:]
    assert [float(line.split("|")[2]) for line in lines] == sorted(
        (round(100 * x, 2) for x in iou.values()), reverse=True
    )


def test_an_interrupted_command_resumes_and_then_removes_its_counts(evaluate, tmp_path, monkeypatch, capsys):
    words = ("maskclip", "--set", "icon-voc20", "icon-voc21", "--images", 4, "--background", 0.2)
    whole = evaluate(*words)
    measured = []

    def stopped(method, records, vocabulary, **how):
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(vocabulary.name)
        return evaluate_set(method, records, vocabulary, **how)

    with monkeypatch.context() as patch:
        patch.setattr("ovs_lite.commands.evaluate_segmentation.evaluate_set", stopped)
        assert main(["evaluate", *map(str, words), "--profile", "smoke"]) == 130
    kept = list((tmp_path / "runs" / "evaluate").rglob("*.safetensors"))
    assert len(kept) == 1 and kept[0].parent.name == whole["sets"]["icon-voc20"]["card"]["hash"]
    capsys.readouterr()
    assert evaluate(*words) == whole
    assert "icon-voc20: 100%" in capsys.readouterr().err and not (tmp_path / "runs" / "evaluate").exists()


@pytest.mark.slow
def test_two_processes_print_once_what_one_prints(evaluate, world, tmp_path):
    words = ["evaluate", "maskclip", "--set", "icon-voc20", "--images", "12"]
    alone = evaluate(*words[1:])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ovs_lite"]
    out = ["--profile", "smoke", "--out", str(tmp_path / "two.json")]
    two = subprocess.run([*command, *words, *out], env=environment(), capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("| set | images |") == 1 and json.loads((tmp_path / "two.json").read_text()) == alone


def test_a_prepared_public_set_is_found_by_its_name(command, world, tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path))
    shutil.copytree(world / "icon-smoke/icon-voc20/val", tmp_path / "voc20/val")
    assert command("--set", "voc20", "--images", 2, "--out", tmp_path / "named.json") == 0
    assert command("--set", "voc20", "--data", "voc20/val", "--images", 2, "--out", tmp_path / "given.json") == 0
    named, given = (json.loads((tmp_path / f"{name}.json").read_text())["sets"] for name in ("named", "given"))
    assert named == given and named["voc20"]["images"] == 2
