"""What a run says about every claim of the ledger: run/claims.json, and the tables that the report opens with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.claims import NOT_RUN, VERDICTS, Claim, Part, combined, ledger
from ovs_lite.files import write_json
from ovs_lite.notebook.logs import read_claims, signed

CLAIMS_JSON = "claims.json"
MEASURED = ("verdict", "ours", "interval", "n", "seeds", "notebook")
# A verdict is known by its word, then its mark; the colour (of the report's style sheet) only helps.
MARKS = {"holds": "\u2713", "reversed": "\u2717", "inconclusive": "?", "not run": "\u2013"}
SHOWN_ORDER = ("holds", "inconclusive", "reversed", "not run")
Measured = Mapping[tuple[str, str], Mapping[str, Any]]


def write_claims(run: str | Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Write run/claims.json from what the notebooks `names` recorded, later ones first, and return its content."""
    rows = {(row["id"], row["part"]): row for name in names for row in read_claims(Path(run) / name)}
    found = entries(rows)
    write_json(Path(run) / CLAIMS_JSON, found)
    return found


def entries(measured: Measured) -> list[dict[str, Any]]:
    """One object per claim of the ledger, in its order, from {(claim's id, part): its row of claims.jsonl}.

    Each: id, where, claim, verdict, paper (as text), paper_value, ours, interval, n, seeds, notebook, unit, direction,
    margin and why; parts: the same of each part. Where there are parts, the numbers of the claim are those of the first
    part with its verdict (else of the first that was run), which `decided_by` names.
    """
    return [_entry(claim, measured) for claim in ledger().values()]


def counted(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """{verdict: how many claims}, every verdict present."""
    counts = Counter(entry["verdict"] for entry in found)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def grouped(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """{paper: its claims}, in the ledger's order."""
    papers: dict[str, list[Mapping[str, Any]]] = {}
    for entry in found:
        papers.setdefault(entry["where"].split(",")[0], []).append(entry)
    return papers


def answer(found: Sequence[Mapping[str, Any]]) -> str:
    """How many of the claims hold, in one sentence, e.g. "25 of 47 claims hold, 12 are inconclusive, ..."."""
    counts = counted(found)
    held, open_, reversed_, absent = (counts[verdict] for verdict in SHOWN_ORDER)
    parts = [f"{held} of {len(found)} claims {'holds' if held == 1 else 'hold'}"]
    parts += [f"{open_} {'is' if open_ == 1 else 'are'} inconclusive"]
    parts += [f"{reversed_} {'is' if reversed_ == 1 else 'are'} reversed"]
    return f"{', '.join(parts)} and {absent} {'was' if absent == 1 else 'were'} not run."


def by_paper(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{paper: rows of its table}: one per claim, followed, where it has parts, by one for each with the numbers."""
    return {paper: [row for entry in group for row in shown_rows(entry)] for paper, group in grouped(found).items()}


def shown_rows(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A claim of `entries` in words: a row for it and one per part; the numbers stand in those of the parts."""
    parts = entry["parts"]
    numbers = _shown(entry) if not parts else dict.fromkeys(("ours", "wanted", "n", "seeds", "notebook"))
    head = {**entry, **numbers, "part": "", "numbers": entry["paper"]}
    rows = [head, *({**part, **_shown(part)} for part in parts)]
    return [row | {"mark": MARKS[row["verdict"]]} for row in rows]


def _entry(claim: Claim, rows: Measured) -> dict[str, Any]:
    parts = [_part(name, part, rows.get((claim.id, name)), claim.notebook) for name, part in claim.parts.items()]
    whole = combined([part["verdict"] for part in parts])
    deciding = next((part for part in parts if part["verdict"] == whole), None)
    if deciding is None:  # some parts hold, the others were not run
        deciding = next(part for part in parts if part["verdict"] != NOT_RUN)
    about = {"id": claim.id, "where": claim.where, "claim": claim.claim, "verdict": whole, "paper": claim.numbers}
    entry = {**about, **{key: value for key, value in deciding.items() if key not in ("part", "verdict")}}
    several = deciding["part"] != ""
    return {**entry, "decided_by": deciding["part"] or None, "parts": parts if several else []}


def _part(name: str, part: Part, row: Mapping[str, Any] | None, notebook: str) -> dict[str, Any]:
    measured = {key: row.get(key) for key in MEASURED} if row else dict.fromkeys(MEASURED)
    if row is None:
        measured |= {"verdict": NOT_RUN, "notebook": notebook}
    declared = {key: getattr(part, key) for key in ("measure", "unit", "direction", "margin", "why")}
    return {"part": name, **measured, **declared, "paper_value": part.paper}


def _shown(part: Mapping[str, Any]) -> dict[str, str]:
    """Measured and wanted numbers in words."""
    unit, margin = part["unit"], f"{part['margin']:g}"
    wanted = {1: f"at least +{margin}", -1: f"at most -{margin}", 0: f"within {margin} of 0"}[part["direction"]]
    ours = ""
    if part["verdict"] != NOT_RUN:
        interval = part["interval"]
        spread = f"{signed(interval[0])} to {signed(interval[1])}" if interval else "no interval"
        ours = f"{signed(part['ours'])} {unit} ({spread})"
    paper = "" if part["paper_value"] is None else f"{signed(part['paper_value'])} {unit}"
    seeds = ", ".join(map(str, part["seeds"] or ()))
    return {"ours": ours, "wanted": f"{wanted} {unit}", "seeds": seeds, "numbers": paper}
