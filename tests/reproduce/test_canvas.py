"""A canvas in an executed notebook's page and in the report: the content passes, no other script does."""

import base64
import hashlib
import json
import re
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import v4
from PIL import Image

import ovs_lite
from kit.browser import browser_page
from kit.explorer import HOSTILE, segmenters, stripes
from kit.images import noise
from ovs_lite.notebook import canvas
from ovs_lite.reproduce.report import write_notebook_page, write_report
from ovs_lite.viz.explorer.inlined import HOLDER, contents
from ovs_lite.viz.sheets import contact_sheet

ALT = 'Two methods on "one" <image>'


def two(names=("cat", "grass", "sky")):
    return {"one": stripes(list(names)), "two": stripes(list(names)[::-1])}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the page and the report of a notebook whose cells showed canvases of these results; their paths."""

    def write(*shown, more=()):
        outputs, folder = [], tmp_path / "07_x"
        folder.mkdir()
        monkeypatch.setattr(
            canvas, "display", lambda data, raw: outputs.append(v4.new_output("display_data", data=data))
        )
        for results in shown:
            image = next(iter(results.values())).image
            canvas.show_canvas(image, results, ALT, folder=folder)
        outputs += [v4.new_output("display_data", data={"text/html": one}) for one in more]
        nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("x", outputs=outputs)]), folder / "executed.ipynb")
        return write_notebook_page(folder, "07_x"), write_report(tmp_path, ["07_x"]), folder / "executed.ipynb"

    return write


def scripts(page):
    return [dict(tag.attrs) for tag in BeautifulSoup(page.read_text(), "html.parser").find_all("script")]


@pytest.mark.parametrize("names", [("cat", "grass", "sky"), HOSTILE])
def test_pages_hold_the_content_the_still_image_and_one_script_that_their_policy_names(written, names):
    results = two(names)
    for page in written(results)[:2]:
        soup = BeautifulSoup(page.read_text(), "html.parser")
        holder, module = soup.find_all("script")
        still = soup.find("figure", id=holder["data-for"]).img
        assert still["alt"] == ALT and still["src"].startswith("data:image/png;base64,")
        shown = json.loads(holder.string)
        assert shown["names"] == list(names) and [layer["name"] for layer in shown["methods"]] == ["one", "two"]
        digest = base64.b64encode(hashlib.sha256(module.string.encode()).digest()).decode()
        policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
        assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        assert not [name for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on")]


def test_what_only_looks_like_a_canvas_stays_out(written):
    holder = f'<script class="{HOLDER}" type="application/json" data-for="{{}}">{{}}</script>'
    forged = [
        holder.format("canvas-0123456789abcdef", text) for text in ("no json", "[1]", "[" * 100_000, '{"a": NaN}')
    ]
    forged += [holder.format('"><script>', "{}"), "<script>window.owned=1</script>"]
    notebook, report, _ = written(more=forged)
    assert scripts(notebook) == scripts(report) == []
    assert "script-src" not in notebook.read_text() + report.read_text()


def test_a_content_that_would_end_its_element_is_escaped_again():
    raw = '{"name": "\\u003c/script>\\u003cimg src=x>"}'
    found = contents(f'<script class="{HOLDER}" data-for="canvas-0123456789abcdef">{raw}</script>')
    assert not re.search("[<>]", found["canvas-0123456789abcdef"]) and json.loads(*found.values()) == json.loads(raw)


def test_a_panel_that_a_cell_showed_is_a_canvas_in_the_page(tmp_path):
    explorer = ovs_lite.viz.explore(segmenters(), noise(24, 32), "red, green")
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data, "with a kernel it is the panel"
    cell = v4.new_code_cell("x", outputs=[v4.new_output("display_data", data=data)])
    nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "executed.ipynb")
    soup = BeautifulSoup(write_notebook_page(tmp_path, "x").read_text(), "html.parser")
    shown = json.loads(soup.find("script", class_=HOLDER).string)
    assert shown["methods"] == explorer.content["methods"] and shown["photo"] == explorer.photo
    assert "red" in soup.find("figure").img["alt"]


def test_where_scripts_are_off_all_results_are_to_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "display", lambda *_, **__: None)
    results = two()
    image, drawn = results["one"].image, [result.overlay(legend=False) for result in results.values()]
    canvas.show_canvas(image, results, ALT, folder=tmp_path)
    with Image.open(tmp_path / canvas.SIDE_BY_SIDE) as still:
        expected = contact_sheet([image, *drawn], ["picture", *results])
        assert still.convert("RGB").tobytes() == expected.tobytes() != contact_sheet([image] * 3).tobytes()


def test_a_canvas_needs_a_description():
    result = stripes(["cat"])
    with pytest.raises(ValueError, match="alt text"):
        canvas.show_canvas(result.image, {"m": result}, " ")


# In a browser, from disk: nothing is asked of the network, nothing complains.

CANVASES = "document.querySelectorAll('.ovs-explorer canvas').length"
PIXELS = "document.querySelector('.ovs-explorer canvas').toDataURL()"
CENTRE = "(() => { const b = document.querySelector('.ovs-explorer canvas').getBoundingClientRect();" + (
    "return [b.x + 60, b.y + 60] })()"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


def text(page, place):
    return page.evaluate(f"document.querySelector({place!r}).textContent")


def use(page):
    """Hover, toggles, opacity, one method and two, why: each changes what it should."""
    page.evaluate("document.querySelector('.ovs-explorer').scrollIntoView()")
    seen = [page.evaluate(PIXELS)]
    page.mouse("mouseMoved", *page.evaluate(CENTRE))
    assert "one: cat" in text(page, ".readout") and "two: sky" in text(page, ".readout")
    for change in (
        "document.querySelector('.ovs-explorer .eye').click()",
        "(() => { const s = document.querySelector('.ovs-explorer input[type=range]'); s.value = 1;"
        "s.dispatchEvent(new Event('input')) })()",
        "[...document.querySelectorAll('.ovs-explorer button')].find((b) => b.textContent === 'One').click()",
    ):
        page.evaluate(change)
        seen.append(page.evaluate(PIXELS))
    assert len(set(seen)) == len(seen)
    for kind in ("mousePressed", "mouseReleased"):
        page.mouse(kind, *page.evaluate(CENTRE), "left")
    assert "Why pixel" in text(page, ".why") and text(page, ".why").count("cat") == 2
    page.evaluate("document.querySelector('.ovs-explorer canvas').focus()")


@pytest.mark.slow
def test_the_canvases_work_in_the_pages_and_in_another_export_and_the_image_where_scripts_are_off(written, browser):
    notebook, report, executed = written(two(), {"hostile": stripes(HOSTILE)})
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.read(executed, as_version=4))
    exported = executed.with_name("exported.html")
    exported.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{body}", encoding="utf-8")
    for page, number in ((notebook, 2), (exported, 2), (report, 1)):
        browser.requests.clear(), browser.complaints.clear()
        browser.open(page.as_uri())
        browser.until(lambda number=number: browser.evaluate(CANVASES) == number)
        if page != report:  # the report shows the notebook's last one
            use(browser)
        assert browser.evaluate("window.owned") is None and not browser.requests and not browser.complaints
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    for page in (notebook, exported, report):
        browser.call("Page.navigate", url=page.as_uri())
        there = f"document.readyState === 'complete' && location.href === {page.as_uri()!r}"
        while not browser.evaluate(there):
            time.sleep(0.1)
        still = "[...document.querySelectorAll('figure > img')].every((i) => i.naturalWidth > 0 && i.alt.length > 9)"
        assert browser.evaluate(CANVASES) == 0 and browser.evaluate(still)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
