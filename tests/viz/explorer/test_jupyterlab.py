"""The panel in JupyterLab itself: run the cell, type a word, move the slider, switch the method, click a point, take it
back, ask why, pick another picture.

Slow, and skipped where no Chromium is installed.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from PIL import Image

from kit.browser import browser_page

pytestmark = pytest.mark.slow
SCENE = Path(__file__).parents[3] / "docs" / "scene.png"
CELL = f"import ovs_lite\novs_lite.explore(['tcl', 'uniovseg'], {str(SCENE)!r}, 'handbag, sofa, soil')"
ACCEPT = "document.querySelector('.jp-Dialog .jp-mod-accept')?.click()"
IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]') !== null"
CANVAS, WORDS = "document.querySelector('.ovs-explorer canvas')", "document.querySelector('.ovs-explorer .words')"
WHY = "document.querySelector('.ovs-explorer .why').textContent"
FREE = "document.querySelector('.ovs-explorer').getAttribute('aria-busy') === 'false'"
ERROR = "document.querySelector('.ovs-explorer .error').textContent"
LAYERS = "document.querySelector('.ovs-explorer .layers').textContent"


@contextmanager
def lab(folder):
    """JupyterLab on a free port, with one notebook; yields that notebook's address."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel), folder / "a.ipynb"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [f"--port={port}", "--ServerApp.token=x", f"--ServerApp.root_dir={folder}", "--allow-root"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", *settings], stdout=log, stderr=log
        )
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=x", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/lab/tree/a.ipynb?token=x"
        finally:
            _end(server)


def _end(server, seconds=30):
    """Ask the server to stop; one that waits for a busy kernel longer than that is killed, with its kernels."""
    kernels = psutil.Process(server.pid).children(recursive=True)  # each leads a session of its own
    server.terminate()
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for kernel in kernels:
        with suppress(psutil.NoSuchProcess):
            kernel.kill()


def run_cell(page):
    """Accept the kernel, run the cell, wait for the panel."""
    page.until(lambda: page.evaluate(IDLE), 120)
    for _ in range(8):
        page.evaluate(ACCEPT)
        time.sleep(0.5)
    page.until(lambda: page.evaluate(IDLE), 120)
    page.evaluate("document.querySelector('.jp-Notebook .cm-content').focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "modifiers": 8}
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, **enter)
    page.until(lambda: page.evaluate(f"{ACCEPT}, {CANVAS} !== null"), 240)


def test_the_panel_answers_words_a_slider_another_method_and_a_click(tmp_path):
    (tmp_path / "lab").mkdir()

    def shot():
        return page.evaluate(f"{CANVAS}.toDataURL()")

    with browser_page(tmp_path) as page, lab(tmp_path / "lab") as address:
        page.open(address, height=900)
        run_cell(page)
        seen = [shot()]
        page.evaluate(
            f"{WORDS}.value = 'television, soil, wall'; "
            f"{WORDS}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true}}))"
        )
        page.until(lambda: "television" in page.evaluate(LAYERS), 120)
        seen.append(shot())
        slider = "document.querySelector('.ovs-explorer input[type=range]')"
        page.evaluate(f"{slider}.value = {slider}.max; {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
        seen.append(shot())
        page.evaluate(f"{CANVAS}.focus()")
        page.press("m")
        page.until(lambda: shot() != seen[-1], 120)
        seen.append(shot())
        page.press("p")
        plain = page.evaluate(LAYERS)
        box = f"(() => {{const b = {CANVAS}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]}})()"
        x, y, width, height = page.evaluate(box)
        assert len(set(seen)) == len(seen), "every step changes the pixels"
        for kind in ("mousePressed", "mouseReleased"):
            page.mouse(kind, x + 0.6 * width, y + 0.65 * height, "left")
        page.until(lambda: page.evaluate(LAYERS) != plain and page.evaluate(FREE), 120)
        assert page.evaluate(f"document.activeElement === {CANVAS}")
        page.press("z", control=True)
        page.until(lambda: page.evaluate(LAYERS) == plain and page.evaluate(FREE), 120)
        page.press("v")
        for kind in ("mousePressed", "mouseReleased"):
            page.mouse(kind, x + 0.6 * width, y + 0.65 * height, "left")
        page.until(lambda: "Sentences about" in page.evaluate(WHY) and page.evaluate(FREE), 120)
        assert "roposal" in page.evaluate(WHY)
        before = shot()
        (tmp_path / "bad.png").write_bytes(b"no picture")
        page.pick(".ovs-explorer input[type=file]", tmp_path / "bad.png")
        page.until(lambda: "cannot be read as an image" in page.evaluate(ERROR), 120)
        assert shot() == before
        Image.new("RGB", (90, 70), "green").save(tmp_path / "good.png")
        page.pick(".ovs-explorer input[type=file]", tmp_path / "good.png")
        page.until(lambda: page.evaluate(ERROR) == "" and shot() != before, 120)
        assert page.evaluate(WHY) == ""
