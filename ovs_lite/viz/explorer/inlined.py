"""The canvas inside a page that holds other things too: the output of a notebook's cell, the report of a run.

Where it is to stand there is a figure with a PNG and its alt text, and next to it a script element with the content as
JSON, which is data. A script of the kit turns every such figure into a canvas; where scripts are off, or taken out by
whoever shows the page, the PNG stays.
"""

import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any

from bs4 import BeautifulSoup
from PIL import Image

from ovs_lite.viz.explorer.content import Origin, Result, content, data_url
from ovs_lite.viz.explorer.page import inline_json, script, script_digest, styles

HOLDER = "ovs-content"
NAME = re.compile("canvas-[0-9a-f]{16}")
CODE = f"{script()}\nreplaceStills();\n"


def inlined_content(image: Image.Image, results: Mapping[str, Result], origin: Origin | None = None) -> dict[str, Any]:
    """`content` and the image itself, all that a canvas without a kernel needs. Raises ValueError as `content`."""
    return {"photo": data_url(image)} | content(image, results, origin)


def figure(source: str, alt: str, shown: Mapping[str, Any], caption: bool = False) -> str:
    """The still image of a URL, and the content of the canvas that takes its place.

    source: data URL of a PNG. shown: as `inlined_content`; empty: the image stays. caption: whether `alt` is shown
    below, too.
    """
    text, below = inline_json(shown), f"<figcaption>{html.escape(alt)}</figcaption>" if caption else ""
    image = f'<img alt="{html.escape(alt)}" src="{html.escape(source)}" style="max-width: 100%">{below}'
    name = f"canvas-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return f'<figure id="{name}">{image}</figure>{holder(name, text) if shown else ""}'


def holder(name: str, text: str) -> str:
    """The element that holds a canvas's content. text: as `inline_json` gives it."""
    return f'<script type="application/json" class="{HOLDER}" data-for="{name}">{text}</script>'


def output(still: Image.Image, alt: str, shown: Mapping[str, Any]) -> str:
    """HTML of a cell's output: figure, content, styles and script. It asks nothing of a kernel or of a network."""
    picture = figure(data_url(still, smallest=False), alt, shown)
    return f"<div><style>{styles()}</style>{picture}{module()}</div>"


def contents(fragment: str) -> dict[str, str]:
    """What the canvases in some HTML show: the name of each figure, and its content as it may be inlined again."""
    found = {}
    holders = BeautifulSoup(fragment, "html.parser").find_all("script", class_=HOLDER) if HOLDER in fragment else []
    for element in holders:
        name = str(element.get("data-for"))
        try:
            shown = json.loads(element.get_text())
            found |= {name: inline_json(shown)} if isinstance(shown, dict) and NAME.fullmatch(name) else {}
        except (ValueError, RecursionError):  # the still image stays
            continue
    return found


def policy(canvases: bool) -> str:
    """What a page's content security policy adds for its canvases; nothing where it has none."""
    return f"; script-src '{script_digest(CODE)}'" if canvases else ""


def module() -> str:
    """The script element that `policy` allows."""
    return f'<script type="module">{CODE}</script>'
