"""What a run says about every claim of the ledger: run/claims.json, and the table that the report opens with."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovs_lite.claims import NOT_RUN, VERDICTS, Claim, Part, combined, load_claims
from ovs_lite.files import write_json
from ovs_lite.notebook.claims_log import read_claims, signed

CLAIMS_JSON = "claims.json"
MEASURED = ("verdict", "ours", "interval", "n", "seeds", "notebook")
# A verdict is told apart by its word, then its mark; the colour (of the report's style sheet) only helps.
MARKS = {"holds": "\u2713", "reversed": "\u2717", "inconclusive": "?", "not run": "\u2013"}


def write_claims(run: str | Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Write run/claims.json from what the notebooks `names` recorded, later ones first, and return its content.

    One object per claim of the ledger, in its order: id, where, claim, verdict, paper (as text), paper_value, ours,
    interval, n, seeds, notebook, unit, direction, margin and why; parts: the same of each part. Where there are parts,
    the numbers of the claim are those of the first part with its verdict (else of the first that was run), which
    `decided_by` names.
    """
    rows = {(row["id"], row["part"]): row for name in names for row in read_claims(Path(run) / name)}
    found = [_entry(claim, rows) for claim in load_claims().values()]
    write_json(Path(run) / CLAIMS_JSON, found)
    return found


def counted(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """{verdict: how many claims}, every verdict present."""
    counts = Counter(entry["verdict"] for entry in found)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def by_paper(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{paper: rows of its table}: one per claim, followed, where it has parts, by one for each with the numbers."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for entry in found:
        parts = entry["parts"]
        numbers = _shown(entry) if not parts else dict.fromkeys(("ours", "wanted", "n", "seeds", "notebook"))
        head = {**entry, **numbers, "part": "", "numbers": entry["paper"]}
        rows = [head] + [{**part, **_shown(part), "numbers": _paper(part)} for part in parts]
        table = tables.setdefault(entry["where"].split(",")[0], [])
        table += [row | {"mark": MARKS[row["verdict"]]} for row in rows]
    return tables


def _entry(claim: Claim, rows: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    parts = [_part(name, part, rows.get((claim.id, name)), claim.notebook) for name, part in claim.parts.items()]
    whole = combined([part["verdict"] for part in parts])
    deciding = next((part for part in parts if part["verdict"] == whole), None)
    if deciding is None:  # some parts hold, the others were not run
        deciding = next(part for part in parts if part["verdict"] != NOT_RUN)
    about = {"id": claim.id, "where": claim.where, "claim": claim.claim, "verdict": whole, "paper": claim.numbers}
    entry = {**about, **{key: value for key, value in deciding.items() if key not in ("part", "verdict")}}
    several = deciding["part"] != ""
    return {**entry, "decided_by": deciding["part"] or None, "parts": parts if several else []}


def _part(name: str, part: Part, row: dict[str, Any] | None, notebook: str) -> dict[str, Any]:
    measured = {key: row.get(key) for key in MEASURED} if row else dict.fromkeys(MEASURED)
    if row is None:
        measured |= {"verdict": NOT_RUN, "notebook": notebook}
    declared = {"measure": part.measure, "unit": part.unit, "direction": part.direction, "margin": part.margin}
    return {"part": name, **measured, **declared, "why": part.why, "paper_value": part.paper}


def _paper(part: dict[str, Any]) -> str:
    return "" if part["paper_value"] is None else f"{signed(part['paper_value'])} {part['unit']}"


def _shown(part: dict[str, Any]) -> dict[str, str]:
    """Measured and wanted numbers in words."""
    unit, margin = part["unit"], f"{part['margin']:g}"
    wanted = {1: f"at least +{margin}", -1: f"at most -{margin}", 0: f"within {margin} of 0"}[part["direction"]]
    ours = ""
    if part["verdict"] != NOT_RUN:
        interval = part["interval"]
        spread = f"{signed(interval[0])} to {signed(interval[1])}" if interval else "no interval"
        ours = f"{signed(part['ours'])} {unit} ({spread})"
    return {"ours": ours, "wanted": f"{wanted} {unit}", "seeds": ", ".join(map(str, part["seeds"] or ()))}
