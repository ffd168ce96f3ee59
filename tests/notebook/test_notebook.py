"""Set-up, recorded numbers, progress lines and figures with alt text."""

import json
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

import ovs_lite.notebook as notebook
from ovs_lite.notebook.logs import format_number, read_claims, read_metrics


@pytest.fixture
def shown(monkeypatch):
    """What `show` displays, as a list of mime bundles."""
    bundles = []
    monkeypatch.setattr(notebook, "display", lambda data, raw: bundles.append(data))
    return bundles


def test_setup_saves_the_resolved_profile_and_seeds(tmp_path):
    context = notebook.setup("smoke", 3, tmp_path / "01_x", **{"data.val_scenes": 5})
    first = (torch.rand(2).tolist(), random.random())
    notebook.setup("smoke", 3, tmp_path / "01_x")
    assert (torch.rand(2).tolist(), random.random()) == first
    assert (context.notebook, context.profile.seed, context.profile.data.val_scenes) == ("01_x", 3, 5)
    saved = json.loads((tmp_path / "01_x" / "config.json").read_text())
    assert saved["name"] == "smoke" and saved["data"]["val_scenes"] == 12


def test_setup_by_hand_never_writes_into_the_folder_of_reproduced_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_RUNS", str(tmp_path))
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/01_clip.ipynb")
    assert notebook.setup("smoke").out == tmp_path / "by-hand" / "smoke" / "01_clip"


def test_setup_refuses_unknown_keys(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'clip'"):
        notebook.setup("smoke", 0, tmp_path, clp="ViT-B-16")


def test_data_tells_the_command_that_builds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "nothing"))
    context = notebook.setup("smoke", 0, tmp_path)
    with pytest.raises(FileNotFoundError, match="ovs-lite data build --profile smoke"):
        context.data("icon-coco", "train")


def test_record_writes_one_row_with_its_circumstances_and_says_it(tmp_path, capsys):
    notebook.setup("smoke", 7, tmp_path / "01_x")
    notebook.record("mIoU", torch.tensor(41.25), n=120, unit="%", paper=20.1, before=np.float32(0.5))
    assert capsys.readouterr().out == "mIoU: 41.25 %  (n = 120, paper: 20.1 %)\n"
    (row,) = read_metrics(tmp_path / "01_x")
    expected = {"name": "mIoU", "value": 41.25, "n": 120, "unit": "%", "paper": 20.1, "before": 0.5}
    expected |= {"notebook": "01_x", "profile": "smoke", "seed": 7}
    assert row.pop("time") and row == expected


def test_a_cell_run_twice_leaves_one_number_and_setup_starts_over(tmp_path):
    notebook.setup("smoke", 0, tmp_path)
    for value in (1.0, 2.0, float("nan")):
        notebook.record("loss", value)
    assert [row["value"] for row in read_metrics(tmp_path)] == [None]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    notebook.setup("smoke", 0, tmp_path)
    assert read_metrics(tmp_path) == []


def test_record_before_setup_says_so(monkeypatch):
    monkeypatch.setattr(notebook, "_current", None)
    with pytest.raises(RuntimeError, match="before setup"):
        notebook.record("x", 1.0)


def test_a_claim_is_recorded_with_its_verdict_and_said(tmp_path, capsys):
    run = notebook.setup("smoke", 7, tmp_path / "04_x")
    run.claim("tcl-5", torch.tensor(3.25), (np.float64(1.0), 5.5), 40)
    expected = "claim tcl-5: holds (+3.25 points, 95 % interval +1 to +5.5; margin 2 points; paper: +9.3)\n"
    assert capsys.readouterr().out == expected
    run.claim("openseg-1", -3.0, None, 40, (0, 1), part="R90")
    assert capsys.readouterr().out.startswith("claim openseg-1, R90: inconclusive (-3 points, no interval; margin")
    first, second = read_claims(tmp_path / "04_x")
    assert first.pop("time")
    assert first == {
        "id": "tcl-5", "part": "", "verdict": "holds", "ours": 3.25, "interval": [1.0, 5.5], "n": 40, "seeds": [7],
        "direction": 1, "margin": 2, "unit": "points", "paper": 9.3, "notebook": "04_x", "profile": "smoke",
    }  # fmt: skip
    assert (second["part"], second["seeds"], second["interval"]) == ("R90", [0, 1], None)
    run.claim("tcl-5", 0.0, (-1.0, 1.0), 40)
    assert [row["verdict"] for row in read_claims(tmp_path / "04_x")] == ["inconclusive"] * 2, "the last one counts"
    notebook.setup("smoke", 7, tmp_path / "04_x")
    assert read_claims(tmp_path / "04_x") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tcl_5", 1.0, None, 40), "did you mean 'tcl-5'"),
        (("tcl-5", float("nan"), None, 40), "got ours=nan"),
        (("tcl-5", 1.0, (2.0, 3.0), 40), "expected finite low <= ours <= high"),
        (("tcl-5", 1.0, (3.0, 0.0), 40), "expected finite low <= ours <= high"),
        (("tcl-5", 1.0, (0.0, 3.0), 0), "got n=0"),
        (("tcl-5", 1.0, (0.0, 3.0), 40, ()), r"seeds=\[\]"),
        (("tcl-5", 1.0, (0.0, 3.0), 40, None, "R50"), "this claim has no parts"),
        (("tcl-6", 1.0, (0.0, 3.0), 40), "expected one of tcl, maskclip"),
    ],
)
def test_a_claim_that_cannot_be_is_an_error_and_leaves_no_row(tmp_path, arguments, message):
    run = notebook.setup("smoke", 0, tmp_path)
    with pytest.raises(ValueError, match=message):
        run.claim(*arguments)
    assert read_claims(tmp_path) == []


@pytest.mark.parametrize(
    "rest", [b'{"name": "b", "val', '{"name": "ü'.encode()[:-1], b"[]", b"7", b'{"value": 1}', b'{"name": []}']
)
def test_a_last_line_that_is_truncated_or_no_row_is_passed_over(tmp_path, rest):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"name": "a", "value": 1}\n' + rest)
    assert [row["name"] for row in read_metrics(tmp_path)] == ["a"]


@pytest.mark.parametrize("n", [0, -1])
def test_a_metric_over_nothing_is_an_error_and_leaves_no_row(tmp_path, n):
    context = notebook.setup("smoke", 0, tmp_path)
    with pytest.raises(ValueError, match=f"got n={n} for 'mIoU', expected at least 1"):
        notebook.record("mIoU", float("nan"), n=n)
    assert read_metrics(context.out) == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.123456, "", "0.1235"), (41.2, "%", "41.2 %"), (7, "steps", "7 steps"), (None, "%", "undefined")],
)
def test_numbers_are_readable(value, unit, text):
    assert format_number(value, unit) == text


@pytest.mark.parametrize(("count", "lines"), [(0, []), (1, ["100 % (1 of 1)"]), (8, ["25", "50", "75", "100"])])
def test_headless_progress_prints_at_most_four_lines(count, lines, monkeypatch, capsys):
    monkeypatch.setenv("OVS_HEADLESS", "1")
    assert list(notebook.progress(range(count), "training")) == list(range(count))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines)
    assert all(line.startswith("training: " + start) for line, start in zip(printed, lines, strict=True))


def test_show_embeds_a_png_with_escaped_alt_text(shown):
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    alt = '"><script>alert(1)</script> $x$ & more'
    notebook.show(figure, alt)
    (tag,) = BeautifulSoup(shown[0]["text/html"], "html.parser").find_all(True)
    assert (tag.name, tag["alt"]) == ("img", alt) and tag["src"].startswith("data:image/png;base64,")
    assert not plt.fignum_exists(figure.number), "an open figure would be shown a second time"


def test_show_takes_pil_images_and_wants_a_description(shown):
    notebook.show(Image.new("RGB", (4, 4)), "a black square")
    assert shown[0]["text/plain"] == "[image: a black square]"
    with pytest.raises(ValueError, match="alt text"):
        notebook.show(Image.new("RGB", (4, 4)), "  ")
