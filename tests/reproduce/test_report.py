"""Pages are self-contained and hold hostile text as text."""

import base64
import html
import json
import re
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from ovs_lite.claims import load_claims
from ovs_lite.config import get_profile
from ovs_lite.notebook import Context
from ovs_lite.reproduce.offline_html import clean, draw_formulas
from ovs_lite.reproduce.products import damaged, read_stage, write_stage
from ovs_lite.reproduce.report import write_notebook_page, write_report
from ovs_lite.reproduce.verdicts import counted, write_claims

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<b onmouseover=alert(1) background=https://evil.example/x.png>x</b>",
    "</style><script>alert(1)</script>",
    "</pre><script src=//evil.example/x.js></script>",
    '"><iframe src="https://evil.example"></iframe>',
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='//evil.example/x.html'>x</a>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<math><mtext></mtext><style><img src=x onerror=alert(1)></style></math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<!--><script>alert(1)</script>-->",
    "<div style='background:url(https://evil.example/x.png)'>x</div>",
    "<img src='data:text/html;base64,PHNjcmlwdD4='>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "$\\href{https://evil.example}{x}$",
    "%s {} {{ 7*7 }} {% raw %}",
    "\x1b[31mred\x1b[0m",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def assert_offline(page):
    """No script, no event attribute, nothing that loads or leads elsewhere."""
    soup = BeautifulSoup(page, "html.parser")
    found = {tag.name for tag in soup.find_all(True)}
    assert not found & {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "math", "video", "audio"}
    assert all(tag.get("http-equiv") in (None, "Content-Security-Policy") for tag in soup.find_all("meta"))
    for tag in soup.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on") or name in ("srcset", "xlink:href", "action")]
        assert "url(" not in str(tag.get("style", ""))
        assert str(tag.get("src", "data:image/")).startswith("data:image/")
        href = str(tag.get("href", "#"))
        assert not re.match(r"\s*([a-z][a-z0-9+.-]*:|//)", href, re.IGNORECASE), href
    assert not re.search(r"url\(|@import", "".join(style.get_text() for style in soup.find_all("style")))


def hostile_notebook():
    """Every hostile text in markdown, source, stream, HTML and plain outputs, and in a traceback."""
    cells = []
    for text in HOSTILE:
        outputs = [
            v4.new_output("stream", text=text),
            v4.new_output("display_data", data={"text/html": text, "text/plain": text}),
            v4.new_output("display_data", data={"application/javascript": "alert(1)", "text/plain": text}),
            v4.new_output("display_data", data={"image/svg+xml": f"<svg>{text}</svg>"}),
            v4.new_output("display_data", data={"text/markdown": text}),
            v4.new_output("display_data", data={"text/latex": text}),
            v4.new_output("error", ename="ValueError", evalue=text, traceback=[text]),
        ]
        cells += [v4.new_markdown_cell(text), v4.new_code_cell(f"print({text!r})", outputs=outputs)]
    for width in ("1 onload=alert(1)", '1"><script>alert(1)</script>'):
        size = {"image/png": {"width": width, "alt": width}}
        image = v4.new_output("display_data", data={"image/png": PIXEL}, metadata=size)
        cells.append(v4.new_code_cell("s", outputs=[image]))
    isolated = {"text/html": {"isolated": True}}
    alone = v4.new_output("display_data", data={"text/html": HOSTILE[0]}, metadata=isolated)
    cells.append(v4.new_code_cell("i", outputs=[alone]))
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {}}, "version_major": 2}}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "a slider"}
    cells.append(v4.new_code_cell("w", outputs=[v4.new_output("display_data", data=view)]))
    return v4.new_notebook(cells=cells, metadata={"widgets": widgets})


def test_notebook_page_is_offline_and_shows_hostile_text_literally(tmp_path):
    nbformat.write(hostile_notebook(), tmp_path / "executed.ipynb")
    page = write_notebook_page(tmp_path, HOSTILE[0]).read_text()
    assert_offline(page)
    soup = BeautifulSoup(page, "html.parser")
    assert soup.title.get_text() == HOSTILE[0]
    text = soup.get_text()
    assert all(item in text for item in HOSTILE if "\x1b" not in item and "$" not in item)
    assert "a slider" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_clean_is_idempotent(text):
    once = clean(text)
    assert clean(once) == once
    assert_offline(once)


def test_scripts_go_with_their_text_and_unknown_tags_leave_theirs():
    assert clean("a<script>alert(1)</script><style>p {}</style>b<blink>c</blink>") == "abc"


def test_clean_keeps_what_lessons_need():
    kept = '<details><summary>Solution</summary><pre class="x">a</pre></details><a href="#top">up</a>'
    kept += '<table><tr><td colspan="2" style="width: 3em">x</td></tr></table>'
    assert clean(kept) == kept
    assert clean('<a href="01_clip_bottleneck.ipynb">01</a>') == '<a href="../01_clip_bottleneck/executed.html">01</a>'
    assert clean('<a href="https://a.example/p">paper</a>') == "<a>paper (https://a.example/p)</a>"


def test_formulas_become_pictures_with_their_source_as_alt_text():
    soup = BeautifulSoup(draw_formulas(r"<p>with $\frac{a}{b}$ and $$\sum_i x_i$$ for $5 or 6$7</p>"), "html.parser")
    assert [image["alt"] for image in soup.find_all("img")] == [r"\frac{a}{b}", r"\sum_i x_i"]
    assert soup.get_text() == "with  and  for $5 or 6$7"
    undrawable = draw_formulas(r"<p>$\begin{cases} a \end{cases}$</p><code>$x$</code>")
    assert r'<code class="formula">\begin{cases} a \end{cases}</code>' in undrawable
    assert "<code>$x$</code>" in undrawable, "code is not mathematics"


def test_markdown_formulas_survive_the_export(tmp_path):
    source = r"The loss is $\mathcal{L}_{i} = -\log \frac{e^{s_{ii}}}{\sum_{j} e^{s_{ij}}}$ and $a_1 * b * c_1$."
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell(source)]), tmp_path / "executed.ipynb")
    soup = BeautifulSoup(write_notebook_page(tmp_path, "x").read_text(), "html.parser")
    assert [image["alt"] for image in soup.find_all("img")] == re.findall(r"\$(.+?)\$", source)


def write_run(run, text):
    """A run of three notebooks: one done with a figure and metrics, one failed, one killed; `text` everywhere."""
    (run / "00_done").mkdir(parents=True)
    (run / "01_failed").mkdir()
    (run / "02_killed").mkdir()
    tags = f'<img alt="cat 31 %" src="data:image/png;base64,{PIXEL}"><img src="https://evil.example/x.png">'
    figure = v4.new_output("display_data", data={"text/html": tags})
    bare = v4.new_output("display_data", data={"image/png": PIXEL})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("show()", outputs=[figure, bare])])
    nbformat.write(notebook, run / "00_done" / "executed.ipynb")
    write_notebook_page(run / "00_done", "00_done")
    rows = [
        {"name": text, "value": 41.234, "interval": [39, 44.5], "unit": "%", "n": 8, "paper": 20.1},
        {"name": "nothing", "value": None},
    ]
    (run / "00_done" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {"seconds": 12.3, "memory": 1536, "finished": "today", "commit": f"{'0123456789' * 4} with changes"}
    write_stage(run / "00_done", {"status": "done", **made})
    failed = {"seconds": 1, "memory": 300, "message": text, "traceback": text}
    write_stage(run / "01_failed", {"status": "failed", **failed})
    (run / "02_killed" / "executed.ipynb").write_text('{"cells": [')
    (run / "run.json").write_text(json.dumps({"profile": {"name": "smoke", "seed": 3}, "machine": {"system": text}}))


@pytest.mark.parametrize("text", HOSTILE)
def test_report_escapes_everything(tmp_path, text):
    write_run(tmp_path, text)
    page = write_report(tmp_path, ["00_done", "01_failed", "02_killed", "03_absent"]).read_text()
    assert_offline(page)
    shown = BeautifulSoup(page, "html.parser").get_text()
    assert shown.count(text) == 4, "metric, message, traceback, configuration"
    assert "{{" not in page.replace("{{ 7*7 }}", "")


def test_report_holds_results_figures_and_links(tmp_path):
    write_run(tmp_path, "accuracy")
    page = write_report(tmp_path, ["00_done", "01_failed", "02_killed", "03_absent"]).read_text()
    soup = BeautifulSoup(page, "html.parser")
    tables = {table.find_previous(["h2", "h3"]).get_text(): table for table in soup.find_all("table")[1:]}
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in tables["Notebooks"].find_all("tr")[1:]]
    assert [row[1] for row in rows] == ["done", "failed", "did not finish", "not run"]
    assert rows[0][2:] == ["12 s", "1.5 GB", "today", "0123456789 with changes"]
    assert rows[1][2:4] == ["1 s", "300 MB"]
    assert [link["href"] for link in soup.find_all("a")] == ["claims.json", "results.csv", "00_done/executed.html"]
    metrics = [[cell.get_text() for cell in row.find_all("td")] for row in tables["00_done"].find_all("tr")[1:]]
    assert metrics == [["accuracy", "41.23 %", "39 to 44.5", "8", "20.1 %"], ["nothing", "undefined", "", "", ""]]
    assert [image["alt"] for image in soup.find_all("img")] == ["cat 31 %", "image without a description, cell 1"]
    assert "1 of 4 notebooks are done" in soup.get_text() and "profile.seed" in soup.get_text()


def links(page):
    """The files that a page's links open, as a browser reads them."""
    found = re.findall(r'<a href="([^"]*)"', page.read_text())
    urls = (urlsplit(urljoin(page.as_uri(), html.unescape(link))) for link in found)
    return [unquote(url.path) for url in urls if not url.query and not url.fragment and url.path.endswith(".html")]


def test_links_open_whatever_the_notebook_is_called(tmp_path):
    names = ["00_plain", "01_a b#c 50%", "02_what? 100%25 #2", '03_"q"&<b>', "04_\u00e9\u732b", "05_a:b;c"]
    for name in names:
        (tmp_path / name).mkdir()
        nbformat.write(v4.new_notebook(), tmp_path / name / "executed.ipynb")
        write_notebook_page(tmp_path / name, name)
    assert links(write_report(tmp_path, names)) == [str(tmp_path / name / "executed.html") for name in names]
    assert clean('<a href="01_a%20b%23.ipynb">x</a>') == '<a href="../01_a%20b%23/executed.html">x</a>'
    for remote in ("//host/%41.html", "javascript%3Aalert(1).html", "https://host/x.ipynb"):
        assert "href" not in clean(f'<a href="{remote}">x</a>')


@pytest.mark.parametrize("name", ["metrics.jsonl", "executed.ipynb", "executed.html", "deep/weights.bin"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "gone", "a folder"])
def test_a_product_that_does_not_fit_is_named_and_not_shown(tmp_path, name, how):
    write_run(tmp_path, "accuracy")
    folder = tmp_path / "00_done"
    for path in (folder / "deep/weights.bin", folder / "deep/checkpoints/step-1/state"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
    write_stage(folder, {"status": "done"})
    assert damaged(folder, read_stage(folder)) == []
    (folder / "deep/checkpoints/step-1/state").unlink()
    assert damaged(folder, read_stage(folder)) == [], "checkpoints may be deleted"
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if how == "a folder":
        (folder / name).mkdir()
    elif how != "gone":
        changed = content[: len(content) // 2] if how == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
        (folder / name).write_bytes(changed)
    assert damaged(folder, read_stage(folder)) == [name]
    page = write_report(tmp_path, ["00_done", "01_failed"]).read_text()
    assert f"damaged: {name}; run it again" in page and "41.23" not in page and "/executed.html" not in page


def test_a_flipped_stage_counts_as_none(tmp_path):
    write_stage(tmp_path, {"status": "done", "seconds": 12})
    text = (tmp_path / "stage.json").read_text()
    assert read_stage(tmp_path)["seconds"] == 12
    for changed in (text.replace("12", '"x"'), text.replace("done", "dome"), text[:-9], "[]", "", "\udce9"):
        (tmp_path / "stage.json").write_text(changed, errors="surrogateescape")
        assert read_stage(tmp_path) == {}


def write_claims_of(folder, *rows):
    """Rows of claims.jsonl as `run.claim` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part, ours, interval, n in rows:
        Context(get_profile("smoke"), folder.name, folder).claim(name, ours, interval, n, (0, 1), part)


def test_claims_json_has_every_claim_and_the_later_notebook_wins(tmp_path):
    nothing = write_claims(tmp_path, ["02_early", "04_late"])
    assert {entry["verdict"] for entry in nothing} == {"not run"} and all(entry["ours"] is None for entry in nothing)
    early = [("openseg-1", f"R{cut}", 3.0, (1.0, 5.0), 60) for cut in (50, 70)]
    write_claims_of(tmp_path / "02_early", ("tcl-5", None, 9.0, (8.0, 9.9), 7), *early, *early)
    write_claims_of(tmp_path / "04_late", ("tcl-5", None, -3.0, (-5.0, -1.0), 200), ("ovseg-5", None, 0.3, None, 8))
    found = {entry["id"]: entry for entry in write_claims(tmp_path, ["02_early", "04_late", "05_absent"])}
    assert list(found) == list(load_claims())
    assert json.loads((tmp_path / "claims.json").read_text()) == list(found.values())
    expected = {"verdict": "reversed", "ours": -3.0, "interval": [-5.0, -1.0], "n": 200, "seeds": [0, 1]}
    expected |= {"notebook": "04_late", "direction": 1, "margin": 2, "unit": "points", "paper_value": 9.3}
    assert expected.items() <= found["tcl-5"].items() and "27.9" in found["tcl-5"]["paper"]
    assert found["tcl-5"]["parts"] == [] and found["tcl-5"]["decided_by"] is None
    assert found["ovseg-5"]["verdict"] == "inconclusive" and found["ovseg-5"]["interval"] is None
    parts = found["openseg-1"]["parts"]
    assert [(part["part"], part["verdict"]) for part in parts] == [
        ("R50", "holds"), ("R70", "holds"), ("R90", "not run"),
    ]  # fmt: skip
    assert found["openseg-1"]["verdict"] == "inconclusive" and found["openseg-1"]["ours"] == 3.0
    assert counted(list(found.values())) == {"holds": 0, "reversed": 1, "inconclusive": 2, "not run": 44}


def test_the_numbers_of_a_claim_with_parts_are_those_of_the_part_that_decides(tmp_path):
    rows = [("openseg-1", "R50", 3.0, (1.0, 5.0), 60), ("openseg-1", "R70", -4.0, (-5.0, -3.0), 61)]
    write_claims_of(tmp_path / "02_x", *rows)
    (found,) = (entry for entry in write_claims(tmp_path, ["02_x"]) if entry["id"] == "openseg-1")
    assert (found["verdict"], found["decided_by"], found["ours"], found["n"]) == ("reversed", "R70", -4.0, 61)


def test_a_truncated_claim_is_passed_over(tmp_path):
    write_claims_of(tmp_path / "04_x", ("tcl-5", None, 9.0, (8.0, 9.9), 7))
    with open(tmp_path / "04_x" / "claims.jsonl", "a") as file:
        file.write('{"id": "tcl-7", "par')
    assert counted(write_claims(tmp_path, ["04_x"]))["not run"] == 46


def test_the_report_opens_with_the_verdicts(tmp_path):
    write_claims_of(tmp_path / "02_x", *[("openseg-1", f"R{cut}", 3.0, (1.0, 5.0), 60) for cut in (50, 70, 90)])
    write_claims_of(tmp_path / "03_x", ("openseg-12", None, -6.04, (-8.0, -1.0), 33))
    page = write_report(tmp_path, ["02_x", "03_x"]).read_text()
    assert_offline(page)
    soup = BeautifulSoup(page, "html.parser")
    sentence = "1 of 47 claims holds, 0 are inconclusive, 1 is reversed and 45 were not run."
    before = soup.find("h2").find_all_previous("p")
    assert soup.h1.get_text().endswith("?") and sentence in [paragraph.get_text() for paragraph in before]
    assert soup.find(role="img")["aria-label"] == sentence
    overview = soup.find("table")
    assert overview.find_previous("h2") is None, "the first screen comes before any section"
    heads = [" ".join(cell.get_text().split()) for cell in overview.find_all("th", scope="col")]
    assert heads == ["Paper", "\u2713 holds", "? inconclusive", "\u2717 reversed", "\u2013 not run"]
    counts = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in overview.find_all("tr")]
    assert counts[2] == ["OpenSeg", "1", "0", "1", "11"] and len(counts) == 7
    papers = [title.get_text() for title in soup.find_all("h3")][:6]
    assert papers == ["CLIP", "OpenSeg", "TCL", "OVSeg", "Uni-OVSeg", "Training-free methods"]
    rows = [[" ".join(cell.get_text().split()) for cell in row.find_all("td")] for row in soup.find_all("tr")]
    (claim,) = (row for row in rows if row and row[0].startswith("openseg-12 "))
    assert claim[1:7] == [
        "\u2717 reversed", "-6.04 points (-8 to -1)", "at least +5 points", "33", "0, 1", "poor performance",
    ]  # fmt: skip
    first = next(i for i, row in enumerate(rows) if row and row[0].startswith("openseg-1 "))
    assert rows[first][1] == "\u2713 holds" and rows[first][2] == "", "the parts have the numbers"
    assert [row[0].split(":")[0] for row in rows[first + 1 : first + 4]] == ["R50", "R70", "R90"]
    assert rows[first + 1][6] == "+22.9 points"
    assert {tag["class"][1] for tag in soup.select("td .verdict")} == {"holds", "reversed", "not-run"}
    limits = [" ".join(item.get_text().split()) for item in soup.select(".limits li")]
    assert limits[0].startswith("openseg-12 without") and "lies on the other side of 0" in limits[0]
    assert "clip-1: notebook 00 was not run to its end." in limits and not [x for x in limits if "openseg-1 " in x]


def test_the_image_of_all_methods_is_shown_where_it_is_there_and_described(tmp_path):
    write_run(tmp_path, "accuracy")
    names = ["00_done", "01_failed"]
    (tmp_path / "00_done" / "side-by-side.png").write_bytes(base64.b64decode(PIXEL))
    assert "every method" not in write_report(tmp_path, names).read_text(), "an image without words"
    (tmp_path / "00_done" / "side-by-side.txt").write_text('Nine masks of <b>one</b>\n"street"')
    page = write_report(tmp_path, names).read_text()
    assert_offline(page)
    figure = BeautifulSoup(page, "html.parser").find("figure")
    assert figure.find_previous("h2").get_text() == "One image, every method"
    assert figure.img["alt"] == figure.get_text().strip() == 'Nine masks of <b>one</b> "street"'
    assert figure.img["src"] == f"data:image/png;base64,{PIXEL}"


def test_pages_fit_phones_and_dark_rooms(tmp_path):
    """Every colour is a variable with a dark value; every table wide enough to overflow scrolls in a box of its own."""
    write_run(tmp_path, "accuracy")
    page = write_report(tmp_path, ["00_done"]).read_text()
    soup = BeautifulSoup(page, "html.parser")
    assert soup.find("meta", attrs={"name": "viewport"})["content"] == "width=device-width, initial-scale=1"
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    names = [set(re.findall(r"(--[a-z-]+):", block)) for block in (light, dark)]
    assert names[0] == names[1] and set(re.findall(r"var\((--[a-z-]+)\)", page)) <= names[0]
    assert all(table.parent.get("class") == ["scroll"] for table in soup.find_all("table")[1:])
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in soup.select(".scroll")), "keys can scroll it"
    notebook = (tmp_path / "00_done" / "executed.html").read_text()
    assert notebook.count("prefers-color-scheme: dark") == 2, "the page and its code"


def contrast(one, other):
    """WCAG's ratio of two #rrggbb or #rgb colours."""
    lights = []
    for colour in (one, other):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_text_can_be_read_on_both_pages(tmp_path):
    assert contrast("#fff", "#000000") == pytest.approx(21) and contrast("#777777", "#777") == 1
    page = write_report(tmp_path, []).read_text()
    pairs = [("text", "page"), ("text", "shade"), ("soft", "page"), ("link", "page"), ("error", "page")]
    pairs += [("holds", "holds-back"), ("reversed", "reversed-back"), ("open", "open-back"), ("absent", "page")]
    pairs += [("absent", "absent-bar"), ("absent", "shade")]
    for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block))
        low = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
        assert min(low.values()) >= 4.5, {pair: ratio for pair, ratio in low.items() if ratio < 4.5}
        bars = [contrast("#111111", colours[f"{name}-bar"]) for name in ("holds", "reversed", "open")]
        assert min(bars) >= 3
