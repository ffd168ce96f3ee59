"""What a notebook measured: metrics.jsonl and claims.jsonl, one JSON object per line, appended as it is measured.

The last row of a metric's name, and of a claim's part, counts.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovs_lite.files import to_json

METRICS, CLAIMS = "metrics.jsonl", "claims.jsonl"


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON line, with the time, to a file; numbers that are not finite become null."""
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(to_json({**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}) + "\n")


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of folder/metrics.jsonl, of each name the last one; [] without a file."""
    return _last_rows(Path(folder) / METRICS, "name")


def read_claims(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of folder/claims.jsonl, of each part of a claim the last one; [] without a file."""
    return _last_rows(Path(folder) / CLAIMS, "id", "part")


def _last_rows(path: Path, *keys: str) -> list[dict[str, Any]]:
    """In order of first appearance. A line truncated by a kill is passed over: its notebook is shown as unfinished."""
    rows = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:  # a letter may be truncated, too
        try:
            row = json.loads(line)
            rows[tuple(row[key] for key in keys)] = row
        except (ValueError, KeyError, TypeError):
            continue
    return list(rows.values())


def format_number(value: Any, unit: str = "") -> str:
    """A value as people read it: at most four significant digits, "undefined" for null and NaN."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "undefined"
    number = value if isinstance(value, str | int) else f"{value:.4g}"
    return f"{number} {unit}".rstrip()


def signed(value: float) -> str:
    """A difference as people read it: three significant digits, none beyond thousandths, and its sign."""
    return f"{round(value, 3) or 0.0:+.3g}"


def claim_line(row: Mapping[str, Any]) -> str:
    """A row of claims.jsonl as people read it."""
    label = f"claim {row['id']}" + (f", {row['part']}" if row["part"] else "")
    spread = "95 % interval {} to {}".format(*map(signed, row["interval"])) if row["interval"] else "no interval"
    paper = "" if row["paper"] is None else f"; paper: {signed(row['paper'])}"
    margin = format_number(row["margin"], row["unit"])
    return f"{label}: {row['verdict']} ({signed(row['ours'])} {row['unit']}, {spread}; margin {margin}{paper})"
