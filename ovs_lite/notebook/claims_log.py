"""What a notebook found about claims of the ledger: one JSON object per line, the last one of a claim's part counts."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.claims import Interval, get_claim, verdict
from ovs_lite.notebook.metrics_log import append_row, format_number, read_rows

CLAIMS = "claims.jsonl"


def record_claim(
    folder: str | Path,
    name: str,
    ours: float,
    interval: Interval | None,
    n: int,
    seeds: Sequence[int],
    part: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Add one row to folder/claims.jsonl, with its verdict, and return it as a line to read.

    name: id of a claim.
    ours: what was measured, in the unit of the ledger.
    interval: its 95 % interval (low, high), which contains it; None leaves the claim inconclusive.
    n: how many images, pairs or targets it was measured on.
    seeds: of the training runs behind it.
    part: which part of a claim that has some.
    about: facts to keep with the row.
    Raises ValueError for an unknown claim or part, and for numbers that cannot be (see `ovs_lite.claims.verdict`).
    """
    wanted = get_claim(name).part(part)
    ours = float(ours)
    interval = None if interval is None else (float(interval[0]), float(interval[1]))
    found = verdict(wanted, ours, interval)
    seeds = [int(seed) for seed in seeds]
    if n < 1 or not seeds:
        raise ValueError(f"got n={n} and seeds={seeds} for claim {name!r}, expected at least one of each")
    measured = {"verdict": found, "ours": ours, "interval": interval, "n": int(n), "seeds": seeds}
    declared = {"direction": wanted.direction, "margin": wanted.margin, "unit": wanted.unit, "paper": wanted.paper}
    row = {"id": name, "part": part or "", **measured, **declared, **(about or {})}
    append_row(Path(folder) / CLAIMS, {**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return _line(row)


def read_claims(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of folder/claims.jsonl, of each part of a claim the last one; [] without a file."""
    return read_rows(Path(folder) / CLAIMS, "id", "part")


def signed(value: float) -> str:
    """A difference as people read it: three significant digits and its sign."""
    return f"{value:+.3g}"


def _line(row: Mapping[str, Any]) -> str:
    label = f"claim {row['id']}" + (f", {row['part']}" if row["part"] else "")
    low, high = row["interval"] or (None, None)
    spread = "no interval" if low is None else f"95 % interval {signed(low)} to {signed(high)}"
    paper = "" if row["paper"] is None else f"; paper: {signed(row['paper'])}"
    margin = format_number(row["margin"], row["unit"])
    return f"{label}: {row['verdict']} ({signed(row['ours'])} {row['unit']}, {spread}; margin {margin}{paper})"
