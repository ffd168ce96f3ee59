"""README's verdicts, docs/claims.md and docs/deviations.md are what their sources make of them."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from ovs_lite.claims import HOLDS, get_claim, load_claims, verdict
from ovs_lite.cli import build_parser
from ovs_lite.reproduce import documents as module
from ovs_lite.reproduce.again import read_again
from ovs_lite.reproduce.deviations import departures, deviations_page, statements
from ovs_lite.reproduce.documents import BEGIN, END, documents, write_documents
from ovs_lite.reproduce.limitations import load_notes
from ovs_lite.reproduce.results import Results, read_results
from ovs_lite.reproduce.verdicts import SHOWN_ORDER, counted, entries

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results.csv"


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made():
    """What the sources give."""
    return documents(read_results(RESULTS), readme(), read_again(ROOT / "docs" / "again.csv"))


@pytest.mark.parametrize("name", ["README.md", "docs/claims.md", "docs/deviations.md"])
def test_the_committed_document_is_up_to_date(made, name):
    """Independent of how they are written."""
    same = (ROOT / name).read_text(encoding="utf-8") == made[name]
    assert same, f"{name} differs from its sources; run: {module.COMMAND}"


def test_the_readme_counts_what_the_csv_says():
    """By the csv's own rows, without the generator."""
    with open(RESULTS, encoding="utf-8", newline="") as file:
        claims = {row["claim"]: row["verdict"] for row in csv.DictReader(file) if row["kind"] == "claim"}
    assert list(claims) == list(load_claims())
    block = readme().split(BEGIN)[1].split(END)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line.startswith("| ")][
        2:
    ]
    for column, word in enumerate(SHOWN_ORDER, 1):
        ids = [name for row in rows for name in re.findall(r"[a-z]+-\d+", row[column])]
        assert sorted(ids) == sorted(name for name, said in claims.items() if said == word)
        assert sum(int(row[column].split(":")[0]) for row in rows) == len(ids)


def test_the_committed_verdicts_follow_from_the_committed_numbers():
    measured = read_results(RESULTS).measured
    assert measured
    for (name, part), row in measured.items():
        expected = verdict(get_claim(name).part(part or None), row["ours"], row["interval"])
        assert row["verdict"] == expected, f"{name} {part}: the ledger has changed; run its notebook again"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem[:2])
def test_the_minutes_that_a_notebook_states_are_those_of_the_documented_run(path):
    """Within a half: the same run takes a third longer on a slow day."""
    opening = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    stated = int(re.search(r"\*\*Time\*\*: (\d+)\s+minutes", opening)[1])
    measured = float(read_results(RESULTS).notebooks[path.stem]["seconds"]) / 60
    assert measured / 1.5 <= stated <= 1.5 * measured, f"{stated} minutes stated, {measured:.1f} measured"


def test_a_changed_number_changes_the_table_and_the_page():
    given = read_results(RESULTS)
    before = documents(given, readme())
    held = next(entry for entry in entries(given.measured) if entry["verdict"] == HOLDS)
    measured = {key: row for key, row in given.measured.items() if key[0] != held["id"]}
    after = documents(Results(given.facts, given.notebooks, measured), readme())
    assert after["README.md"] != before["README.md"] and after["docs/claims.md"] != before["docs/claims.md"]
    assert counted(entries(measured))["holds"] == counted(entries(given.measured))["holds"] - 1


def test_every_claim_has_a_command_that_parses():
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    ovs-lite (.+)$", page, re.MULTILINE)
    parsed = [build_parser().parse_args(shlex.split(command)) for command in commands]
    assert sorted(args.claim for args in parsed) == sorted([name] for name in load_claims())


def test_documents_are_written_from_a_run(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "run").mkdir()
    shutil.copy(RESULTS, tmp_path / "run" / "results.csv")
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nyesterday\n{END}\nafter\n")
    with pytest.raises(FileNotFoundError):
        write_documents(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in write_documents(tmp_path, tmp_path / "run")}
    assert names == {"docs/results.csv", "docs/claims.md", "docs/deviations.md", "README.md"}
    assert (tmp_path / "docs" / "results.csv").read_bytes() == RESULTS.read_bytes()
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{BEGIN}\n**") and text.endswith(f"|\n{END}\nafter\n") and "yesterday" not in text
    assert write_documents(tmp_path) and (tmp_path / "README.md").read_text() == text, "again: the same"


def test_a_readme_without_its_markers_is_refused(tmp_path):
    for text in ("", BEGIN, f"{BEGIN}{END}{BEGIN}{END}"):
        with pytest.raises(ValueError, match="places for the verdicts"):
            documents(read_results(RESULTS), text)


def test_text_of_a_table_stays_in_its_cell():
    assert module._row(["a|b", "<i>\n*c*"]) == r"| a\|b | \<i\> \*c\* |"


def test_notes_are_of_claims_and_verdicts_that_exist(tmp_path):
    assert load_notes()
    for text in ("tcl-99: {reversed: x}", "tcl-1: {wrong: x}", "tcl-1: x"):
        (tmp_path / "notes.yaml").write_text(text)
        with pytest.raises(ValueError, match="expected a claim's id"):
            load_notes(tmp_path / "notes.yaml")


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("A loss. Departure: means (Eq. 3) are\nsums. Raises ValueError.", ["means (Eq. 3) are sums."]),
        ("A loss.\n\nDepartures: one; two. Three.\nB images, K classes.", ["one; two. Three."]),
        ("Departures: one.\n\nNo more.", ["one."]),
        ("Departure from X's Eq. 8: all texts.", ["from X's Eq. 8: all texts."]),
        ("    x: y\n        Departure, for speed: z.", ["for speed: z."]),
        ("Departures are named there. No departure: none.", []),
        ("", []),
    ],
)
def test_statements_of_departures(docstring, expected):
    assert statements(docstring) == expected


def test_departures_belong_to_their_method(tmp_path):
    files = {
        "methods/__init__.py": '"""Methods: all. Departure: none of a method."""',
        "methods/abc/__init__.py": '"""Abc: a method."""',
        "methods/abc/net.py": 'class Net:\n    """Departure: smaller."""',
        "methods/uni_abc.py": '"""Uni-Abc: another. Departure: larger."""',
        "losses/one.py": '"""Of Uni-Abc."""\n\ndef f():\n    """As Abc. Departure: flipped."""',
        "losses/two.py": 'def g():\n    """As Abc. Departure: turned."""',
        "losses/three.py": '"""Departure: of nobody."""',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {departure.file: departure for departure in departures(tmp_path)}
    assert {file: item.methods for file, item in found.items() if file.startswith(("methods/a", "methods/u", "l"))} == {
        "methods/abc/net.py": ("Abc",), "methods/uni_abc.py": ("Uni-Abc",), "losses/one.py": ("Uni-Abc",),
        "losses/two.py": ("Abc",), "losses/three.py": (),
    }  # fmt: skip
    assert found["methods/abc/net.py"].name == "Net"
    page = deviations_page(tmp_path)
    assert re.findall(r"## (.+)", page) == ["Abc", "Uni-Abc", "Shared parts"]
    assert "* Turned. (`ovs_lite/losses/two.py`, `g`)" in page


def test_every_docstring_that_says_departure_is_found():
    """Counted by a plain search: each line with the word, less those that only point elsewhere."""
    package = ROOT / "ovs_lite"
    lines = [
        (path.relative_to(package).as_posix(), line)
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "reproduce"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bDepartures?\b(?! are)", line)
    ]
    files = [item.file for item in departures() if not item.file.startswith("reproduce/")]
    assert sorted(files) == sorted(file for file, _ in lines) and len(files) > 20
