"""The explorer: masks of one or several methods on one image, to be looked at in a browser, with a kernel or without.

`explorer_html` writes a page that needs neither a kernel nor a network; `ovs_lite.viz.explore` opens a widget where
words, points and boxes are answered. Both show the same canvas (`maps.js`, `canvas.js`, `panel.js`).
"""

from ovs_lite.viz.explorer.content import Result, content
from ovs_lite.viz.explorer.page import explorer_html

__all__ = ["Result", "content", "explorer_html"]
