"""Run one committed notebook in the smoke profile, from its data on, and look at what it leaves."""

import json
from pathlib import Path

import pytest

from kit import notebook_rules as rules
from ovs_lite.notebook.metrics_log import read_metrics
from ovs_lite.reproduce.pipeline import reproduce

FOLDER = Path(__file__).parents[2] / "notebooks"


def check_smoke_run(number: str, folder: Path) -> None:
    """It ends, leaves numbers with their sample size and a report, and a second call runs nothing.

    A dead proxy keeps the kernel offline.
    """
    environment = {"OVS_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        (result,) = reproduce("smoke", [number], notebooks_dir=FOLDER, runs_dir=folder / "runs")
        (again,) = reproduce("smoke", [number], notebooks_dir=FOLDER, runs_dir=folder / "runs")
    assert result.status == "done", f"{result.name}: {result.message}\n{result.traceback}"
    assert again.status == "up to date"
    left = folder / "runs" / "smoke" / result.name
    rows = read_metrics(left)
    assert any(isinstance(row["value"], int | float) and row["n"] for row in rows), rows
    executed = json.loads((left / "executed.ipynb").read_text(encoding="utf-8"))
    counts = [cell["execution_count"] for cell in rules.code_cells(executed)]
    assert counts and counts == list(range(1, len(counts) + 1))
    assert (left.parent / "report.html").exists()
