"""The report of a run: one HTML page, and one per executed notebook. They open offline and fetch nothing."""

import json
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ovs_lite.config import flatten
from ovs_lite.files import write_text
from ovs_lite.notebook.metrics_log import format_number, read_metrics
from ovs_lite.reproduce.offline_html import INLINE_IMAGE, highlight_css, notebook_fragment
from ovs_lite.reproduce.verdicts import MARKS, by_paper, counted, write_claims

STAGE, RUN, EXECUTED, PAGE, REPORT = "stage.json", "run.json", "executed.ipynb", "executed.html", "report.html"


def write_notebook_page(folder: str | Path, title: str) -> Path:
    """Turn folder/executed.ipynb into folder/executed.html and return its path."""
    folder = Path(folder)
    notebook = nbformat.read(folder / EXECUTED, as_version=4)
    fragment, css = Markup(notebook_fragment(notebook)), Markup(highlight_css())
    page = _template("notebook.html.j2").render(title=title, fragment=fragment, highlight_css=css)
    write_text(folder / PAGE, page)
    return folder / PAGE


def write_report(run: str | Path, names: list[str]) -> Path:
    """Write run/claims.json and run/report.html about the notebooks `names`, each a folder of `run`; returns the page.

    A folder without stage.json is one that was not run, or that was killed while running; the page says so.
    """
    run = Path(run)
    facts = read_json(run / RUN)
    stages = [_stage(run / name) for name in names]
    done = sum(stage["status"] == "done" for stage in stages)
    title = f"ovs-lite, profile {facts.get('profile', {}).get('name', run.name)}"
    summary = f"{done} of {len(stages)} notebooks are done. Every number below was measured by the linked notebook."
    found = write_claims(run, names)
    verdicts = {"claims": len(found), "counts": counted(found), "marks": MARKS, "tables": by_paper(found)}
    content = {"title": title, "summary": summary, "stages": stages, "configuration": list(flatten(facts)), **verdicts}
    write_text(run / REPORT, _template("report.html.j2").render(content))
    return run / REPORT


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; {} where the file is absent or truncated."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _template(name: str):
    return Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True).get_template(name)


def _stage(folder: Path) -> dict[str, Any]:
    stage = read_json(folder / STAGE)
    started = (folder / EXECUTED).exists()
    return {
        "name": folder.name,
        "status": stage.get("status", "did not finish" if started else "not run"),
        "time": f"{stage['seconds']:.0f} s" if "seconds" in stage else "",
        "finished": stage.get("finished", ""),
        "message": stage.get("message", ""),
        "traceback": stage.get("traceback", ""),
        "page": f"{folder.name}/{PAGE}" if (folder / PAGE).exists() else "",
        "metrics": [_metric(row) for row in read_metrics(folder)],
        "figures": _figures(folder / EXECUTED) if started else [],
    }


def _metric(row: dict[str, Any]) -> dict[str, str]:
    unit, paper, n = row.get("unit") or "", row.get("paper"), row.get("n")
    value, expected = format_number(row.get("value"), unit), "" if paper is None else format_number(paper, unit)
    return {"name": row["name"], "value": value, "n": "" if n is None else n, "paper": expected}


def _figures(executed: Path) -> list[dict[str, str]]:
    """The pictures an executed notebook shows: those of `ovs_lite.notebook.show`, and bare PNG outputs."""
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (ValueError, nbformat.ValidationError):  # a kill while papermill was writing
        return []
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/html" in data:
                pictures = BeautifulSoup(data["text/html"], "html.parser").find_all("img")
                found += [{"alt": tag.get("alt", ""), "source": tag.get("src", "")} for tag in pictures]
            elif "image/png" in data:
                source = "data:image/png;base64," + "".join(data["image/png"].split())
                found.append({"alt": f"picture without a description, cell {number}", "source": source})
    return [figure for figure in found if INLINE_IMAGE.match(figure["source"])]
