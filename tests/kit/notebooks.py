"""Run one committed notebook in the smoke profile, from its data on, and look at what it leaves."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit import notebook_rules as rules
from ovs_lite.notebook.logs import read_metrics
from ovs_lite.reproduce.pipeline import reproduce
from ovs_lite.viz.explorer.inlined import HOLDER

MOST_RECORDS, MOST_TEXT, MOST = 200, 100_000, 2_000_000  # outputs of one cell; their letters without images, and with
PICTURE = re.compile(r"data:image/[^,]*;base64,[A-Za-z0-9+/=]*")
FOLDER = Path(__file__).parents[2] / "notebooks"


@contextmanager
def offline(data: Path):
    """A folder of data, threads of a test's own, and a dead proxy, which keeps kernels offline."""
    environment = {"OVS_DATA": str(data), "OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def text_of(output: dict) -> str:
    """An output as text, without images and canvases."""
    shown = output.get("data", {}).items()
    data = {kind: text for kind, text in shown if not kind.startswith("image/") and HOLDER not in json.dumps(text)}
    return PICTURE.sub("", json.dumps(output | {"data": data}))


def check_smoke_run(number: str, folder: Path, data: Path) -> None:
    """It ends, leaves numbers with their sample size and a report, and a second call runs nothing.

    data: with the scenes of the smoke profile, or for them.
    """
    with offline(data):
        (result,) = reproduce("smoke", [number], notebooks_dir=FOLDER, runs_dir=folder / "runs")
        (again,) = reproduce("smoke", [number], notebooks_dir=FOLDER, runs_dir=folder / "runs")
    assert result.status == "done", f"{result.name}: {result.message}\n{result.traceback}"
    assert again.status == "up to date"
    left = folder / "runs" / "smoke" / result.name
    rows = read_metrics(left)
    assert any(isinstance(row["value"], int | float) and row["n"] for row in rows), rows
    executed = json.loads((left / "executed.ipynb").read_text(encoding="utf-8"))
    for cell in rules.code_cells(executed):
        assert len(cell["outputs"]) <= MOST_RECORDS and len(json.dumps(cell["outputs"])) <= MOST
        assert sum(len(text_of(output)) for output in cell["outputs"]) <= MOST_TEXT
    counts = [cell["execution_count"] for cell in rules.code_cells(executed)]
    assert counts and counts == list(range(1, len(counts) + 1))
    assert (left.parent / "report.html").exists()
