"""docs/seeds.csv: the claims of further runs, each with another seed: other scenes, other draws, other trainings.

The weights that come with the kit stay as they are. A part of a claim has a row per seed: what was measured, the 95 %
interval where there is one, and the verdict by the same rule. The first run is docs/results.csv.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovs_lite.claims import get_claim
from ovs_lite.config import RANDOM
from ovs_lite.notebook.logs import signed
from ovs_lite.reproduce.results import RESULTS, Results, read_results

SEEDS = "seeds.csv"
COLUMNS = ("seed", "claim", "part", "value", "low", "high", "n", "verdict", "notebook", "commit")
Row = dict[str, str]


def seeds_table(runs: Sequence[str | Path], first: Results) -> str:
    """The text of seeds.csv from folders of runs, by seed and claim.

    Raises FileNotFoundError for a folder without results.csv, ValueError for a seed that comes twice, or is that of
    `first`, and for another profile.
    """
    rows: list[Row] = []
    known = {first.facts.get("profile.seed", ""): f"docs/{RESULTS}"}
    for run in runs:
        results = read_results(Path(run) / RESULTS)
        if results.facts.get("profile.clip.pretrained") == RANDOM:
            raise ValueError(f"{run}: got a run with random weights, expected one whose CLIP is trained")
        seed, profile = results.facts.get("profile.seed", ""), results.facts.get("profile.name")
        if seed in known:
            raise ValueError(f"{run}: got seed {seed} as in {known[seed]}, expected another one")
        if profile != first.facts.get("profile.name"):
            raise ValueError(
                f"{run}: got profile {profile}, expected {first.facts.get('profile.name')} as in {RESULTS}"
            )
        known[seed] = str(run)
        rows += _rows(results, seed)
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(sorted(rows, key=lambda row: int(row["seed"])))
    return buffer.getvalue()


def read_seeds(path: str | Path) -> list[Row]:
    """Rows of a seeds.csv; none where there is no such file. Raises ValueError where it has other columns."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: got columns {table.fieldnames}, expected {', '.join(COLUMNS)}")
        return list(table)


def said_again(rows: Sequence[Row], claim: str) -> list[str]:
    """What other seeds say of a claim, a sentence per part: numbers, intervals and verdicts."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        if row["claim"] == claim:
            spread = f" ({signed(float(row['low']))} to {signed(float(row['high']))})" if row["low"] else ""
            said = f"seed {row['seed']}: {signed(float(row['value']))}{spread}, {row['verdict']}"
            parts.setdefault(row["part"], []).append(said)
    unit = {part: get_claim(claim).part(part or None).unit for part in parts}
    return [f"{f'{part}, ' if part else ''}{unit[part]}: {'; '.join(said)}." for part, said in parts.items()]


def agreement(rows: Sequence[Row], first: Results) -> str:
    """How often the verdict of a part of a claim is the same with every seed, in one sentence; "" without rows."""
    verdicts: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        verdicts.setdefault((row["claim"], row["part"]), set()).add(row["verdict"])
    both = {key: found | {first.measured[key]["verdict"]} for key, found in verdicts.items() if key in first.measured}
    if not both:
        return ""
    seeds = " and ".join(sorted({row["seed"] for row in rows}, key=int))
    moved = sorted({claim for (claim, _), found in both.items() if len(found) > 1})
    same = sum(len(found) == 1 for found in both.values())
    changed = f"; another one at least once: {', '.join(moved)}" if moved else ""
    return f"Measured again with seeds {seeds}: {same} of {len(both)} differences keep their verdict{changed}."


def _rows(results: Results, seed: str) -> list[Row]:
    return [_row(key, measured, results.notebooks, seed) for key, measured in results.measured.items()]


def _row(key: tuple[str, str], measured: Mapping, notebooks: Mapping[str, Mapping[str, str]], seed: str) -> Row:
    low, high = measured["interval"] or ("", "")
    numbers = {"value": measured["ours"], "low": low, "high": high, "n": measured["n"], "verdict": measured["verdict"]}
    source = {"notebook": measured["notebook"], "commit": notebooks.get(measured["notebook"], {}).get("commit", "")}
    return {
        "seed": seed,
        "claim": key[0],
        "part": key[1],
        **{name: str(value) for name, value in numbers.items()},
    } | source
