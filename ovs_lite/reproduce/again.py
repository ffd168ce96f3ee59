"""docs/again.csv: the claims of further runs, each with another seed, or with changes such as longer trainings.

Another seed means other scenes, other draws, other trainings; the weights that come with the kit stay as they are.
A run with `--config FILE` is named by its file (`examples/longer.yaml`). A part of a claim has a row per run: what was
measured, the 95 % interval where there is one, and the verdict by the same rule. The first run is docs/results.csv.
"""

from collections.abc import Sequence
from pathlib import Path

from ovs_lite.claims import get_claim
from ovs_lite.config import RANDOM
from ovs_lite.notebook.logs import signed
from ovs_lite.reproduce.results import RESULTS, Results, csv_rows, csv_text, read_results

AGAIN = "again.csv"
COLUMNS = ("config", "seed", "claim", "part", "value", "low", "high", "n", "verdict", "notebook", "commit")
Row = dict[str, str]


def again_table(runs: Sequence[str | Path], first: Results) -> str:
    """The text of again.csv from folders of runs, by changes, seed and claim.

    Raises FileNotFoundError for a folder without results.csv, ValueError for a run with seed and changes as another or
    as `first`, for random weights and for another profile.
    """
    rows: list[Row] = []
    known = {_name(first): f"docs/{RESULTS}"}
    for run in runs:
        results = read_results(Path(run) / RESULTS)
        if results.facts.get("profile.clip.pretrained") == RANDOM:
            raise ValueError(f"{run}: got a run with random weights, expected one whose CLIP is trained")
        profile = results.facts.get("profile.name")
        if profile != first.facts.get("profile.name"):
            raise ValueError(
                f"{run}: got profile {profile}, expected {first.facts.get('profile.name')} as in {RESULTS}"
            )
        name = _name(results)
        if name in known:
            given = f"seed {name[1]}" + f" and {name[0]}" * bool(name[0])
            raise ValueError(f"{run}: got {given} as in {known[name]}, expected another seed, or other changes")
        known[name] = str(run)
        rows += _rows(results, *name)
    return csv_text(COLUMNS, sorted(rows, key=lambda row: (row["config"], int(row["seed"]))))


def read_again(path: str | Path) -> list[Row]:
    """Rows of an again.csv; none where there is no such file. Raises ValueError where it has other columns."""
    return csv_rows(Path(path), COLUMNS) if Path(path).exists() else []


def said_again(rows: Sequence[Row], claim: str) -> list[str]:
    """What other runs say of a claim, a sentence per part: numbers, intervals and verdicts."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        if row["claim"] == claim:
            spread = f" ({signed(float(row['low']))} to {signed(float(row['high']))})" if row["low"] else ""
            said = f"{_called(row)}: {signed(float(row['value']))}{spread}, {row['verdict']}"
            parts.setdefault(row["part"], []).append(said)
    unit = {part: get_claim(claim).part(part or None).unit for part in parts}
    return [f"{f'{part}, ' if part else ''}{unit[part]}: {'; '.join(said)}." for part, said in parts.items()]


def agreement(rows: Sequence[Row], first: Results) -> list[str]:
    """How many parts of claims keep their verdict in each other run, a sentence per run."""
    said = []
    for name in dict.fromkeys(map(_called, rows)):
        found = [row for row in rows if _called(row) == name and (row["claim"], row["part"]) in first.measured]
        kept = sum(row["verdict"] == first.measured[row["claim"], row["part"]]["verdict"] for row in found)
        said.append(f"{kept} of {len(found)} parts keep their verdict with {name}.")
    return said


def _called(row: Row) -> str:
    return ", ".join([row["config"]] * bool(row["config"]) + [f"seed {row['seed']}"])


def _name(results: Results) -> tuple[str, str]:
    return results.facts.get("config", ""), results.facts.get("profile.seed", "")


def _rows(results: Results, config: str, seed: str) -> list[Row]:
    rows = []
    for (claim, part), measured in results.measured.items():
        low, high = measured["interval"] or ("", "")
        numbers = {"value": measured["ours"], "low": low, "high": high, "n": measured["n"]}
        notebook = measured["notebook"]
        about = {"config": config, "seed": seed, "claim": claim, "part": part, "verdict": measured["verdict"]}
        about |= {"notebook": notebook, "commit": results.notebooks.get(notebook, {}).get("commit", "")}
        rows.append(about | {name: str(value) for name, value in numbers.items()})
    return rows
