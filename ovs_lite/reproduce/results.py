"""results.csv: all numbers of a run in one table, one row per fact, notebook, metric, claim and part of a claim.

kind      run (name, value), notebook (its time, memory, commit, end), metric, claim, or part (of a claim)
value     of a claim or part: the signed difference that was measured; a claim with parts has its numbers in their rows
low, high the 95 % interval, where there is one
paper     the same number in the paper
seeds     of the training runs behind it, separated by spaces

An empty cell: there is none. Numbers are exact. docs/results.csv is such a file of the run that the documents cite.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovs_lite.config import flatten
from ovs_lite.files import write_text

RESULTS = "results.csv"
COLUMNS = (
    "kind", "notebook", "claim", "part", "name", "value", "unit", "low", "high", "n", "paper", "verdict", "profile",
    "seeds",
)  # fmt: skip
OF_NOTEBOOK = {"status": "", "seconds": "s", "memory": "MB", "commit": "", "finished": ""}
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a results.csv says. facts: {dotted name: text} of the run; notebooks: {name: {"seconds": text, ...}}.

    measured: {(claim's id, part): verdict, ours, interval, n, seeds, notebook} of what was run.
    """

    facts: Mapping[str, str]
    notebooks: Mapping[str, Mapping[str, str]]
    measured: Mapping[tuple[str, str], Mapping[str, Any]]


def write_results(
    run: str | Path, facts: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> Path:
    """Write run/results.csv and return its path.

    facts: of run.json. stages: per notebook its stage.json and `metrics`. found: see `verdicts.entries`.
    """
    profile = facts.get("profile", {}).get("name", "")
    rows = [{"kind": "run", "name": name, "value": value} for name, value in flatten(facts)]
    for stage in stages:
        rows += _of_stage(stage)
    for entry in found:
        rows += _of_claim(entry)
    cells = ({"profile": profile, **{key: _cell(value) for key, value in row.items()}} for row in rows)
    write_text(Path(run) / RESULTS, csv_text(COLUMNS, cells))
    return Path(run) / RESULTS


def read_results(path: str | Path) -> Results:
    """Read a results.csv. Raises FileNotFoundError for none, ValueError where it has other columns or no numbers."""
    path = Path(path)
    rows = csv_rows(path, COLUMNS)
    facts = {row["name"]: row["value"] for row in rows if row["kind"] == "run"}
    notebooks: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["kind"] == "notebook":
            notebooks.setdefault(row["notebook"], {})[row["name"]] = row["value"]
    try:
        return Results(facts, notebooks, dict(_measured(rows)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; write it again with ovs-lite reproduce") from error


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table as the text of a file, its columns first."""
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return buffer.getvalue()


def csv_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of such a file. Raises ValueError where it has other columns."""
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if list(table.fieldnames or ()) != list(columns):
            raise ValueError(f"{path}: got columns {table.fieldnames}, expected {', '.join(columns)}")
        return list(table)


def _of_stage(stage: Mapping[str, Any]) -> list[Row]:
    about = {"notebook": stage["name"]}
    known = [(name, unit) for name, unit in OF_NOTEBOOK.items() if stage.get(name) not in (None, "")]
    rows = [{"kind": "notebook", **about, "name": name, "value": stage[name], "unit": unit} for name, unit in known]
    for metric in stage.get("metrics", ()):
        shared = {key: metric.get(key) for key in ("name", "value", "unit", "n", "paper")}
        rows.append({"kind": "metric", **about, **shared, **_ends(metric), "seeds": metric.get("seed")})
    return rows


def _of_claim(entry: Mapping[str, Any]) -> list[Row]:
    about = {"claim": entry["id"], "notebook": entry["notebook"]}
    parts = entry["parts"]
    head = {"kind": "claim", **about, "name": entry["claim"], "verdict": entry["verdict"]}
    rows = [head if parts else {**head, **_numbers(entry)}]
    for part in parts:
        own = {"part": part["part"], "notebook": part["notebook"], "name": part["measure"], "verdict": part["verdict"]}
        rows.append({"kind": "part", **about, **own, **_numbers(part)})
    return rows


def _numbers(part: Mapping[str, Any]) -> Row:
    shared = {"value": part["ours"], "unit": part["unit"], "n": part["n"], "paper": part["paper_value"]}
    return {**shared, **_ends(part), "seeds": part["seeds"]}


def _ends(row: Mapping[str, Any]) -> Row:
    interval = row.get("interval")
    return {"low": interval[0], "high": interval[1]} if interval else {}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _measured(rows: Iterable[Mapping[str, str]]):
    for row in rows:
        if row["kind"] in ("claim", "part") and row["value"]:
            interval = [float(row["low"]), float(row["high"])] if row["low"] else None
            numbers = {"ours": float(row["value"]), "interval": interval, "n": int(row["n"])}
            seeds = [int(seed) for seed in row["seeds"].split()]
            about = {"verdict": row["verdict"], "notebook": row["notebook"], "seeds": seeds}
            yield (row["claim"], row["part"]), {**about, **numbers}
