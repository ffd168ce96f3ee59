"""The ledger is complete and strict, and verdicts follow from intervals and margins alone."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ovs_lite import claims
from ovs_lite.claims import VERDICTS, Part, combined, get_claim, load_claims, verdict

ROOT = Path(__file__).parents[1]
GOOD = {
    "id": "x-1", "where": "X, Table 1", "claim": "a helps", "numbers": "1 against 2", "measure": "a - b",
    "unit": "points", "direction": 1, "margin": 2, "why": "because", "notebook": "00",
}  # fmt: skip
PAPERS = {"clip": 1, "openseg": 13, "tcl": 11, "ovseg": 10, "uni": 8, "all": 1, "dense": 3}


def part(direction, margin=2.0):
    return Part("a - b", "points", direction, margin, "because")


def test_a_mean_iou_or_quality_says_of_which_set_it_is():
    """Beside the paper's number on another set a reader would take it for the same."""
    measures = [part.measure for claim in load_claims().values() for part in claim.parts.values()]
    counted = [measure for measure in measures if re.search(r"\b(mIoU|PQ|recall on)\b", measure)]
    assert len(counted) > 40 and [measure for measure in counted if "icon-" not in measure] == []


# direction, margin, ours, interval -> verdict
TABLE = [
    (+1, 2, 3.0, (1.0, 5.0), "holds"),
    (+1, 2, 2.0, (0.1, 5.0), "holds"),
    (+1, 2, 1.9, (1.0, 5.0), "inconclusive"),  # too small to count
    (+1, 2, 3.0, (0.0, 5.0), "inconclusive"),  # the interval touches 0
    (+1, 2, 3.0, (-1.0, 7.0), "inconclusive"),
    (+1, 2, -3.0, (-5.0, -1.0), "reversed"),
    (+1, 2, -1.9, (-5.0, -1.0), "inconclusive"),
    (+1, 2, -3.0, (-7.0, 0.0), "inconclusive"),
    (+1, 2, 3.0, None, "inconclusive"),
    (+1, 0, 0.1, (0.05, 0.2), "holds"),
    (+1, 0, 0.0, (-0.1, 0.1), "inconclusive"),
    (0, 2, 0.5, (-1.0, 2.0), "holds"),
    (0, 2, 0.0, (0.0, 0.0), "holds"),
    (0, 2, 1.9, (1.0, 2.1), "inconclusive"),
    (0, 2, 3.0, (2.0, 4.0), "inconclusive"),
    (0, 2, 3.0, (2.1, 4.0), "reversed"),
    (0, 2, -3.0, (-4.0, -2.1), "reversed"),
    (0, 2, 0.0, (-9.0, 9.0), "inconclusive"),
    (0, 2, 0.0, None, "inconclusive"),
]


@pytest.mark.parametrize(("direction", "margin", "ours", "interval", "expected"), TABLE)
def test_verdicts_by_table_and_mirrored(direction, margin, ours, interval, expected):
    assert verdict(part(direction, margin), ours, interval) == expected
    mirrored = None if interval is None else (-interval[1], -interval[0])
    assert verdict(part(-direction, margin), -ours, mirrored) == expected


def slow_verdict(direction, margin, ours, low, high, steps=400):
    """The definition, asked of every number of the interval on a fine grid."""
    inside = [low + (high - low) * step / steps for step in range(steps + 1)]
    if direction == 0:
        close = [abs(x) <= margin for x in inside]
        return "holds" if all(close) else "inconclusive" if any(close) else "reversed"
    if abs(ours) < margin:
        return "inconclusive"
    sides = {(x > 0) - (x < 0) for x in inside}
    return {(direction,): "holds", (-direction,): "reversed"}.get(tuple(sides), "inconclusive")


@pytest.mark.parametrize("direction", [1, 0, -1])
def test_verdicts_agree_with_the_definition_point_by_point(direction):
    numbers = [-4, -2, -1, 0, 1, 2, 4]
    seen = set()
    for low, ours, high, margin in itertools.product(numbers, numbers, numbers, [1, 2, 3]):
        if low <= ours <= high:
            found = verdict(part(direction, margin), ours, (low, high))
            assert found == slow_verdict(direction, margin, ours, low, high), (low, ours, high, margin)
            seen.add(found)
    assert seen == {"holds", "reversed", "inconclusive"}


@pytest.mark.parametrize("direction", [1, 0, -1])
def test_units_do_not_matter_and_a_wider_interval_never_decides_more(direction):
    for ours, half, wider in itertools.product([-5.0, -1.0, 0.5, 5.0], [0.25, 1.0, 4.0], [0.0, 0.5, 3.0]):
        interval = (ours - half, ours + half)
        found = verdict(part(direction), ours, interval)
        hundredths = replace(part(direction), margin=0.02)
        assert verdict(hundredths, ours / 100, (interval[0] / 100, interval[1] / 100)) == found
        assert verdict(part(direction), ours, (interval[0] - wider, interval[1] + wider)) in (found, "inconclusive")


@pytest.mark.parametrize(
    ("ours", "interval"),
    [
        (float("nan"), (0.0, 1.0)), (float("inf"), None), (1.0, (2.0, 3.0)), (1.0, (3.0, 0.0)), (1.0, (-1.0, 0.5)),
        (1.0, (float("nan"), 2.0)), (1.0, (0.0, float("inf"))),
    ],
)  # fmt: skip
def test_impossible_numbers_are_errors(ours, interval):
    with pytest.raises(ValueError, match="expected"):
        verdict(part(1), ours, interval)


def test_a_claim_says_all_of_its_parts():
    for verdicts in itertools.product(VERDICTS, repeat=3):
        if "reversed" in verdicts:
            expected = "reversed"
        elif all(found == "holds" for found in verdicts):
            expected = "holds"
        else:
            expected = "not run" if all(found == "not run" for found in verdicts) else "inconclusive"
        assert combined(verdicts) == expected
        assert combined(verdicts[::-1]) == expected
    assert [combined([found]) for found in VERDICTS] == list(VERDICTS)
    with pytest.raises(ValueError, match="got no verdicts"):
        combined([])


def test_the_ledger_has_every_claim_with_its_margin_and_reason():
    ledger = load_claims()
    counts = {paper: sum(name.split("-")[0] == paper for name in ledger) for paper in PAPERS}
    assert counts == PAPERS and len(ledger) == sum(PAPERS.values())
    for paper, count in PAPERS.items():
        assert [name for name in ledger if name.startswith(f"{paper}-")] == [f"{paper}-{i + 1}" for i in range(count)]
    for name, claim in ledger.items():
        assert re.fullmatch(r"0[0-7](, 0[0-7])*", claim.notebook), name
        assert list(claim.parts) == [""] or len(claim.parts) > 1 and "" not in claim.parts, name
    equal = {name for name, claim in ledger.items() if any(part.direction == 0 for part in claim.parts.values())}
    assert equal == {"openseg-8", "tcl-7", "tcl-8", "ovseg-5", "ovseg-9"}


def test_the_papers_own_numbers_fulfil_the_claims_that_were_declared():
    """A direction typed the wrong way round, or a margin that the paper itself would miss, is a slip in the ledger."""
    compared = 0
    for name, claim in load_claims().items():
        for key, part in claim.parts.items():
            if part.paper is not None:
                assert verdict(part, part.paper, (part.paper, part.paper)) == "holds", (name, key)
                compared += 1
    assert compared > 50


def test_notebooks_speak_only_of_claims_that_the_ledger_gives_them():
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if "outputs" in cell]
        names = set(re.findall(rf'"((?:{"|".join(PAPERS)})-[0-9]+)"', "".join(itertools.chain(*code))))
        assert all(path.name[:2] in get_claim(name).notebook.split(", ") for name in names), (path.name, names)
        found |= {path.name[:2]: names}
    assert found["00"] == {"clip-1"} and found["01"] == {"ovseg-1", "ovseg-2"}
    assert found["02"] == {"openseg-1", "openseg-2", "openseg-3"} and len(found["04"]) >= 10


def write(path, rows):
    path.write_text(rows if isinstance(rows, str) else yaml.safe_dump(rows, sort_keys=False))
    return path


def test_an_empty_ledger_is_empty(tmp_path):
    assert load_claims(write(tmp_path / "claims.yaml", "# nothing yet\n")) == {}


def test_parts_inherit_and_override(tmp_path):
    parts = {"R50": {"paper": 3.5}, "R90": {"direction": -1, "measure": "at 0.9"}}
    claim = load_claims(write(tmp_path / "claims.yaml", [GOOD | {"parts": parts}]))["x-1"]
    assert claim.part("R50") == Part("a - b", "points", 1, 2, "because", 3.5)
    assert claim.part("R90") == Part("a - b: at 0.9", "points", -1, 2, "because")
    with pytest.raises(ValueError, match="got part None of claim 'x-1', expected one of R50, R90"):
        claim.part()
    whole = load_claims(write(tmp_path / "claims.yaml", [GOOD]))["x-1"]
    assert whole.part() == Part("a - b", "points", 1, 2, "because")
    with pytest.raises(ValueError, match="this claim has no parts"):
        whole.part("R50")


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a: [", "not a readable YAML file"),
        ({"x-1": GOOD}, "got dict, expected a list"),
        (["x-1"], r"claim 1 \(None\): got str, expected a mapping"),
        ([GOOD, GOOD], r"claim 2 \('x-1'\): got this id twice"),
        ([without("margin")], "got no margin, expected a value"),
        ([without("claim")], "got no claim, expected a value"),
        ([GOOD | {"marign": 2}], r"got keys \['marign'\]"),
        ([GOOD | {"direction": 2}], "got direction 2, expected 1, -1 or 0"),
        ([GOOD | {"direction": True}], "got direction True, expected 1, -1 or 0"),
        ([GOOD | {"margin": -1}], "got margin -1, expected a positive number"),
        ([GOOD | {"margin": 0, "direction": 0}], "got margin 0, expected a positive number"),
        ([GOOD | {"margin": float("nan")}], "got margin=nan, expected a finite number"),
        ([GOOD | {"margin": "2 points"}], "expected a finite number"),
        ([GOOD | {"paper": "9.3"}], "got paper='9.3', expected a finite number"),
        ([GOOD | {"why": "  "}], "got why='  ', expected text"),
        ([GOOD | {"notebook": 4}], "got notebook=4, expected text"),
        ([GOOD | {"parts": {}}], "expected known keys"),
        ([GOOD | {"parts": ["R50"]}], "expected known keys"),
        ([GOOD | {"parts": {"R50": {"marign": 2}}}], "got part 'R50'"),
        ([GOOD | {"parts": {50: {}}}], "got part 50"),
    ],
)
def test_a_malformed_ledger_names_the_file_the_claim_and_the_fault(tmp_path, rows, message):
    path = write(tmp_path / "claims.yaml", rows)
    with pytest.raises(ValueError, match=message) as error:
        load_claims(path)
    assert str(path) in str(error.value)


def test_an_unknown_claim_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'tcl-5'"):
        get_claim("tcl_5")


def test_the_ledger_is_part_of_the_package():
    assert claims.LEDGER.parent == Path(claims.__file__).parent
    assert '"**/*.yaml"' in (ROOT / "pyproject.toml").read_text()
