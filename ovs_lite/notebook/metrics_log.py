"""What a run measured: one JSON object per line, appended as it is measured, the last one of a name counts."""

import json
import math
from pathlib import Path
from typing import Any

from ovs_lite.files import to_json

METRICS = "metrics.jsonl"


def append_row(path: str | Path, row: dict[str, Any]) -> None:
    """Add one JSON line to a file; numbers that are not finite become null."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(to_json(row) + "\n")


def read_rows(path: str | Path, *keys: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, of those with equal `keys` the last one, in order of first appearance.

    [] without a file. A line truncated by a kill is passed over: the notebook that wrote it did not finish, and is
    shown as such.
    """
    path, rows = Path(path), {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[tuple(row[key] for key in keys)] = row
    return list(rows.values())


def append_metric(folder: str | Path, row: dict[str, Any]) -> None:
    """Add one row to folder/metrics.jsonl."""
    append_row(Path(folder) / METRICS, row)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of folder/metrics.jsonl, of each name the last one."""
    return read_rows(Path(folder) / METRICS, "name")


def format_number(value: Any, unit: str = "") -> str:
    """A value as people read it: at most four significant digits, "undefined" for null and NaN."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "undefined"
    number = value if isinstance(value, str | int) else f"{value:.4g}"
    return f"{number} {unit}".rstrip()
