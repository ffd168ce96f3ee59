"""`ovs-lite explore`: the explorer as a page, or the lines that open it as a panel in JupyterLab."""

import os
from collections.abc import Sequence
from pathlib import Path

from ovs_lite.data.queries import parse_queries
from ovs_lite.files import check_writable, write_text
from ovs_lite.methods.registry import method_class
from ovs_lite.methods.trained import DEFAULT_CLIP

SUFFIXES = (".html", ".htm")


def explore(image: Path, queries: str, methods: Sequence[str], html: Path | None, clip: str, pretrained: str) -> str:
    """Write the page where `html` says so. Returns what to tell the user. Raises as `write_page`."""
    if html is None:
        return in_a_notebook(image, queries, methods, clip, pretrained)
    write_page(image, queries, methods, html, clip, pretrained)
    return f"wrote {html}: open it in a browser, it needs nothing else"


def _check(image: Path, queries: str, methods: Sequence[str]) -> None:
    if not os.path.isfile(image):  # no error for a name that is too long
        raise FileNotFoundError(f"no image at {image}")
    parse_queries(queries)
    for method in methods:
        method_class(method)
    if len(set(methods)) != len(methods):
        raise ValueError(f"got --method {' '.join(methods)}, expected each method once")


def write_page(image: Path, queries: str, methods: Sequence[str], out: Path, clip: str, pretrained: str) -> None:
    """Segment an image with each method and write `explorer_html` of the results.

    Raises ValueError and FileNotFoundError before a model is loaded for a missing image, queries as `parse_queries`, an
    unknown method or one given twice, and a file that is no .html or cannot be written.
    """
    _check(image, queries, methods)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"got --html {str(out)!r}, expected a file name that ends in {' or '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent}; create it first")
    check_writable(out)
    from ovs_lite.segmenter import load
    from ovs_lite.viz.explorer import explorer_html
    from ovs_lite.viz.explorer.content import Origin, loader_line

    results = {name: load(name, clip=clip, pretrained=pretrained).segment(image, queries) for name in methods}
    pixels = next(iter(results.values())).image
    given = {} if (clip, pretrained) == DEFAULT_CLIP else {"clip": clip, "pretrained": pretrained}
    origin = Origin(str(image), queries, {name: loader_line(name, **given) for name in methods})
    write_text(out, explorer_html(pixels, results, title=f"{image.name} - ovs-lite", origin=origin))


def in_a_notebook(image: Path, queries: str, methods: Sequence[str], clip: str, pretrained: str) -> str:
    """What to type for the panel with words and points. Raises as `write_page` for image, queries and methods."""
    _check(image, queries, methods)
    extra = "" if (clip, pretrained) == DEFAULT_CLIP else f", clip={clip!r}, pretrained={pretrained!r}"
    return (
        "The panel needs a kernel: start `jupyter lab` and put this into a cell of a notebook\n\n"
        "    import ovs_lite\n\n"
        f"    ovs_lite.explore({list(methods)!r}, {str(image)!r}, {queries!r}{extra})\n\n"
        "or write a page that needs none: add --html out.html"
    )
