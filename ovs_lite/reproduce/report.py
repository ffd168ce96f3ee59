"""The report of a run: one HTML page, and one per executed notebook. They open offline and fetch nothing.

The page's first screen says how many of the papers' claims this machine saw; then follow one image that all methods
segmented, the claims, what does not hold and why, numbers, figures, and where they were made.
"""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ovs_lite.config import flatten
from ovs_lite.files import read_json, write_text
from ovs_lite.notebook.canvas import SIDE_BY_SIDE
from ovs_lite.notebook.logs import format_number, read_metrics
from ovs_lite.reproduce.limitations import limitations
from ovs_lite.reproduce.offline_html import INLINE_IMAGE, canvases, highlight_css, notebook_fragment
from ovs_lite.reproduce.products import EXECUTED, PAGE, damaged, read_stage
from ovs_lite.reproduce.results import write_results
from ovs_lite.reproduce.verdicts import MARKS, SHOWN_ORDER, answer, by_paper, counted, grouped, write_claims
from ovs_lite.viz.explorer import inlined
from ovs_lite.viz.explorer.page import styles

RUN, REPORT = "run.json", "report.html"


def write_notebook_page(folder: str | Path, title: str) -> Path:
    """Turn folder/executed.ipynb into folder/executed.html and return its path."""
    folder = Path(folder)
    notebook = nbformat.read(folder / EXECUTED, as_version=4)
    fragment, css, shown = Markup(notebook_fragment(notebook)), Markup(highlight_css()), canvases(notebook)
    holders = Markup("".join(inlined.holder(name, text) for name, text in shown.items()))
    page = _template("notebook.html.j2", bool(shown)).render(
        title=title, fragment=fragment, highlight_css=css, holders=holders
    )
    write_text(folder / PAGE, page)
    return folder / PAGE


def write_report(run: str | Path, names: list[str]) -> Path:
    """Write claims.json, results.csv and report.html into `run`, about the notebooks `names`, each a folder of it.

    Returns the page. A folder without stage.json is one that was not run, or that was killed while running; the page
    says so, and which files are damaged: then nothing of that notebook is shown.
    """
    run = Path(run)
    facts = read_json(run / RUN)
    stages = [_stage(run / name) for name in names]
    intact = [stage["name"] for stage in stages if not stage["damaged"]]
    done = [stage["name"] for stage in stages if stage["status"] == "done"]
    found = write_claims(run, intact)
    write_results(run, facts, stages, found)
    papers = {paper: counted(group) for paper, group in grouped(found).items()}
    verdicts = {"answer": answer(found), "counts": counted(found), "papers": papers, "tables": by_paper(found)}
    picture = _picture(run, intact)
    content = {
        "title": f"ovs-lite, profile {facts.get('profile', {}).get('name', run.name)}", "marks": MARKS,
        "order": SHOWN_ORDER, "limits": limitations(found, done), "stages": stages, "summary": _summary(stages, facts),
        "configuration": list(flatten(facts)), "picture": picture, **verdicts,
    }  # fmt: skip
    write_text(run / REPORT, _template("report.html.j2", inlined.HOLDER in (picture or "")).render(content))
    return run / REPORT


def _summary(stages: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """How much was run, where and from what, in two sentences."""
    done = [stage for stage in stages if stage["status"] == "done"]
    minutes = sum(stage.get("seconds", 0) for stage in done) / 60
    machine = facts.get("machine", {})
    where = [machine["processor"]] if machine.get("processor") else []
    where += [f"{machine['cpu cores']} CPU cores"] if "cpu cores" in machine else []
    where += [f"seed {facts['profile']['seed']}"] if "seed" in facts.get("profile", {}) else []
    where += [f"commit {_short(facts.get('commit', 'unknown'))}"]
    return (
        f"{len(done)} of {len(stages)} notebooks are done, {minutes:.0f} minutes in all ({', '.join(where)}). "
        "Every number below was measured by the linked notebook."
    )


def _short(commit: str) -> str:
    """A commit with ten digits of its hash."""
    head, *rest = str(commit).split(" ", 1)
    return " ".join([head[:10], *rest])


def _template(name: str, canvas: bool):
    """canvas: whether the page holds one; only then it may run a script, and only the kit's."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
    environment.filters |= {"number": format_number, "short": _short}
    environment.globals["policy"] = Markup(inlined.policy(canvas))
    environment.globals["canvas_css"] = Markup(styles() if canvas else "")
    environment.globals["canvas_script"] = Markup(inlined.module() if canvas else "")
    return environment.get_template(name)


def _picture(run: Path, names: list[str]) -> Markup | None:
    """The last notebook's side-by-side image with its alt text, and its canvas where it left one, too; None where none
    left both."""
    for name in reversed(names):
        image = run / name / SIDE_BY_SIDE
        alt = image.with_suffix(".txt")
        if image.is_file() and alt.is_file():
            text = " ".join(alt.read_text(encoding="utf-8", errors="replace").split())
            source = f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
            try:
                found = inlined.figure(source, text, read_json(image.with_suffix(".json")), caption=True)
            except ValueError:  # NaN, so not written by the kit: the image stays
                found = inlined.figure(source, text, {}, caption=True)
            return Markup(found)
    return None


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
