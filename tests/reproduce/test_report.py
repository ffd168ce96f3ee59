"""Pages are self-contained and hold hostile text as text."""

import json
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from ovs_lite.reproduce.offline_html import clean, draw_formulas
from ovs_lite.reproduce.report import write_notebook_page, write_report

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
    rows = [{"name": text, "value": 41.234, "unit": "%", "n": 8, "paper": 20.1}, {"name": "nothing", "value": None}]
    (run / "00_done" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "00_done" / "stage.json").write_text(json.dumps({"status": "done", "seconds": 12.3, "finished": "today"}))
    (run / "01_failed" / "stage.json").write_text(
        json.dumps({"status": "failed", "seconds": 1, "message": text, "traceback": text})
    )
    (run / "02_killed" / "executed.ipynb").write_text('{"cells": [')
    (run / "run.json").write_text(json.dumps({"profile": {"name": "smoke", "seed": 3}, "machine": {"system": text}}))


@pytest.mark.parametrize("text", HOSTILE)
def test_report_escapes_everything(tmp_path, text):
    write_run(tmp_path, text)
    page = write_report(tmp_path, ["00_done", "01_failed", "02_killed", "03_absent"]).read_text()
    assert_offline(page)
    shown = BeautifulSoup(page, "html.parser").get_text()
    assert shown.count(text) == 4, "metric, message, traceback, configuration"


def test_report_holds_results_figures_and_links(tmp_path):
    write_run(tmp_path, "accuracy")
    page = write_report(tmp_path, ["00_done", "01_failed", "02_killed", "03_absent"]).read_text()
    soup = BeautifulSoup(page, "html.parser")
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in soup.find_all("table")[0].find_all("tr")[1:]]
    assert [row[1] for row in rows] == ["done", "failed", "did not finish", "not run"]
    assert rows[0][2:] == ["12 s", "today"]
    assert [link["href"] for link in soup.find_all("a")] == ["00_done/executed.html"]
    metrics = [[cell.get_text() for cell in row.find_all("td")] for row in soup.find_all("table")[1].find_all("tr")[1:]]
    assert metrics == [["accuracy", "41.23 %", "8", "20.1 %"], ["nothing", "undefined", "", ""]]
    assert [image["alt"] for image in soup.find_all("img")] == ["cat 31 %", "picture without a description, cell 1"]
    assert "1 of 4 notebooks are done" in soup.get_text() and "profile.seed" in soup.get_text()
