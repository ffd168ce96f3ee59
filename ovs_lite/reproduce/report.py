"""The report of a run: one HTML page, and one per executed notebook. They open offline and fetch nothing."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ovs_lite.config import flatten
from ovs_lite.files import write_text
from ovs_lite.notebook.logs import format_number, read_metrics
from ovs_lite.reproduce.offline_html import INLINE_IMAGE, highlight_css, notebook_fragment
from ovs_lite.reproduce.products import EXECUTED, PAGE, damaged, read_json, read_stage
from ovs_lite.reproduce.verdicts import MARKS, by_paper, counted, write_claims

RUN, REPORT = "run.json", "report.html"


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

    A folder without stage.json is one that was not run, or that was killed while running; the page says so, and which
    files are damaged: then nothing of that notebook is shown.
    """
    run = Path(run)
    facts = read_json(run / RUN)
    stages = [_stage(run / name) for name in names]
    done = sum(stage["status"] == "done" for stage in stages)
    title = f"ovs-lite, profile {facts.get('profile', {}).get('name', run.name)}"
    summary = f"{done} of {len(stages)} notebooks are done. Every number below was measured by the linked notebook."
    found = write_claims(run, [stage["name"] for stage in stages if not stage["damaged"]])
    verdicts = {"claims": len(found), "counts": counted(found), "marks": MARKS, "tables": by_paper(found)}
    content = {"title": title, "summary": summary, "stages": stages, "configuration": list(flatten(facts)), **verdicts}
    write_text(run / REPORT, _template("report.html.j2").render(content))
    return run / REPORT


def _template(name: str):
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
    environment.filters["number"] = format_number
    return environment.get_template(name)


def _stage(folder: Path) -> dict[str, Any]:
    started, stage = (folder / EXECUTED).exists(), read_stage(folder)
    if lost := damaged(folder, stage):
        return {"name": folder.name, "status": f"damaged: {', '.join(lost)}; run it again", "damaged": lost}
    return {
        "status": "did not finish" if started else "not run",
        **stage,
        "name": folder.name,
        "damaged": [],
        "page": quote(f"{folder.name}/{PAGE}") if (folder / PAGE).exists() else "",
        "metrics": read_metrics(folder),
        "figures": _figures(folder / EXECUTED) if started else [],
    }


def _figures(executed: Path) -> list[dict[str, str]]:
    """The images an executed notebook shows: those of `ovs_lite.notebook.show`, and bare PNG outputs."""
    try:
        notebook = nbformat.read(executed, as_version=4)
    except Exception:  # a kill while papermill was writing: nbformat raises half a dozen kinds
        return []
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/html" in data:
                images = BeautifulSoup(data["text/html"], "html.parser").find_all("img")
                found += [{"alt": tag.get("alt", ""), "source": tag.get("src", "")} for tag in images]
            elif "image/png" in data:
                source = "data:image/png;base64," + "".join(data["image/png"].split())
                found.append({"alt": f"image without a description, cell {number}", "source": source})
    return [figure for figure in found if INLINE_IMAGE.match(figure["source"])]
