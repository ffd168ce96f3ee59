"""results.csv gives back, to the last digit, what a run's other files say."""

import csv
import json

import pytest

from ovs_lite.config import get_profile
from ovs_lite.notebook import Context
from ovs_lite.reproduce.products import write_stage
from ovs_lite.reproduce.report import write_report
from ovs_lite.reproduce.results import COLUMNS, read_results
from ovs_lite.reproduce.verdicts import entries

THIRD = 1 / 3


@pytest.fixture
def run(tmp_path):
    """A run of one notebook with two metrics and three claims, one of them with one part of two."""
    folder = tmp_path / "05_x"
    folder.mkdir()
    metrics = [
        {
            "name": 'mIoU, "tuned"\nin two lines',
            "value": THIRD,
            "interval": [0.1, 0.9],
            "n": 40,
            "unit": "%",
            "seed": 3,
        },
        {"name": "nothing", "value": None, "paper": 21.1},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    context = Context(get_profile("smoke"), folder.name, folder)
    context.claim("tcl-5", THIRD, (-THIRD, 2 * THIRD), 120, (0, 1, 2))
    context.claim("ovseg-10", -1.6, None, 40)
    context.claim("ovseg-7", -7.5, (-12.5, -4.0), 120, part="tuning")
    write_stage(folder, {"status": "done", "seconds": 232.3, "memory": 1900, "finished": "today", "commit": "abc"})
    facts = {"command": "ovs-lite reproduce", "profile": {"name": "smoke", "seed": 0}, "machine": {"cpu cores": 2}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    write_report(tmp_path, ["05_x", "07_absent"])
    return tmp_path


def rows_of(run):
    with open(run / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_claims_read_back_are_claims_json(run):
    results = read_results(run / "results.csv")
    assert set(results.measured) == {("tcl-5", ""), ("ovseg-10", ""), ("ovseg-7", "tuning")}
    assert entries(results.measured) == json.loads((run / "claims.json").read_text())
    assert results.measured["tcl-5", ""]["ours"] == THIRD, "every digit"


def test_facts_and_notebooks_read_back(run):
    results = read_results(run / "results.csv")
    assert results.facts["command"] == "ovs-lite reproduce" and results.facts["machine.cpu cores"] == "2"
    expected = {"status": "done", "seconds": "232.3", "memory": "1900", "finished": "today", "commit": "abc"}
    assert results.notebooks == {"05_x": expected, "07_absent": {"status": "not run"}}


def test_one_row_per_metric_claim_and_part(run):
    rows = rows_of(run)
    found = json.loads((run / "claims.json").read_text())
    kinds = [row["kind"] for row in rows]
    assert kinds.count("metric") == 2 and kinds.count("claim") == len(found)
    assert kinds.count("part") == sum(len(entry["parts"]) for entry in found)
    metric, nothing = (row for row in rows if row["kind"] == "metric")
    assert metric["name"] == 'mIoU, "tuned"\nin two lines' and float(metric["value"]) == THIRD
    assert (metric["low"], metric["high"], metric["n"], metric["seeds"]) == ("0.1", "0.9", "40", "3")
    assert (nothing["value"], nothing["low"], nothing["paper"]) == ("", "", "21.1")
    (whole,) = (row for row in rows if row["kind"] == "claim" and row["claim"] == "ovseg-7")
    assert whole["verdict"] == "reversed" and whole["value"] == "", "its parts have the numbers"
    (part,) = (row for row in rows if row["claim"] == "ovseg-7" and row["part"] == "tuning")
    assert [part[key] for key in ("value", "low", "high", "paper", "unit")] == [
        "-7.5",
        "-12.5",
        "-4.0",
        "2.3",
        "points",
    ]
    assert all(row["profile"] == "smoke" for row in rows)


def test_an_unrun_notebook_leaves_every_claim_not_run(tmp_path):
    write_report(tmp_path, ["00_absent"])
    assert read_results(tmp_path / "results.csv").measured == {}
    assert {row["verdict"] for row in rows_of(tmp_path) if row["kind"] == "claim"} == {"not run"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got columns None"),
        ("kind,name\nrun,x\n", "expected kind, notebook, claim"),
        (f"{','.join(COLUMNS)}\nclaim,05_x,tcl-5,,a,much,points,,,40,,holds,lite,0\n", "could not convert"),
    ],
)
def test_what_is_no_results_file_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_results(tmp_path / "x.csv")
    assert str(error.value).startswith(str(tmp_path / "x.csv"))
