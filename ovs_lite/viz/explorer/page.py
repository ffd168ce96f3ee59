"""The explorer as one HTML page: no kernel, no network, nothing beside it. Names are text, never markup."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ovs_lite.viz.explorer.content import Origin, Result, content, data_url
from ovs_lite.viz.overlay import overlay

HERE = Path(__file__).parent
SCRIPTS = (  # in this order one module
    "maps.js", "zip.js", "state.js", "canvas.js", "controls.js", "files.js", "why.js", "panel.js", "start.js",
)  # fmt: skip
# What would end a script element or, in old engines, a line.
ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script() -> str:
    """Canvas and panel as one ES module, whose default export has `render({model, el})` as anywidget takes it."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)


def styles() -> str:
    """The panel's style sheet."""
    return (HERE / "explorer.css").read_text(encoding="utf-8")


def inline_json(value: object) -> str:
    """JSON that may stand inside a script element: nothing in it opens or closes an element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, escape in ESCAPED.items():
        text = text.replace(letter, escape)
    return text.encode("utf-8", "backslashreplace").decode()


def script_digest(code: str) -> str:
    """How a content security policy names a script element of its own by what is in it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


def explorer_html(
    image: Image.Image, results: Mapping[str, Result], title: str = "ovs-lite", origin: Origin | None = None
) -> str:
    """A page that shows the results of M methods on one image: hover, toggles, opacity, side by side, differences.

    image: PIL, upright. results: by the method's name, each as `ovs_lite.Segmentation`. origin: see `content`. Without
    scripts the page shows the first method's overlay with its alt text. The page may load nothing: its content security
    policy names its own script by digest, and data URLs for images. Raises ValueError as `content`.
    """
    shown = {"photo": data_url(image)} | content(image, results, origin)
    first = next(iter(results.values()))
    still = data_url(overlay(image, first.labels, first.queries), smallest=False)
    start = "start(JSON.parse(document.getElementById('content').textContent), document.getElementById('explorer'));"
    code = f"{script()}\n{start}\n"
    alt = html.escape(shown["methods"][0]["alt"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src '{script_digest(code)}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{styles()}</style>
</head>
<body class="ovs-page">
<main id="explorer"></main>
<noscript><p>Scripts are off, so this is a picture of the first method.</p><img src="{still}" alt="{alt}"></noscript>
<script type="application/json" id="content">{inline_json(shown)}</script>
<script type="module">{code}</script>
</body>
</html>
"""
