"""Looking at things: overlays and contact sheets (PIL), figures (matplotlib), one palette for all of them."""

from importlib import import_module

from ovs_lite.viz.explorer.page import explorer_html
from ovs_lite.viz.overlay import alt_text, overlay
from ovs_lite.viz.palette import colour, colours
from ovs_lite.viz.sheets import contact_sheet, mask_sheet

__all__ = ["alt_text", "colour", "colours", "contact_sheet", "explore", "explorer_html", "mask_sheet", "overlay"]


def __getattr__(name: str):
    """The widget, and anywidget with it, only when it is asked for."""
    if name == "explore":
        return import_module("ovs_lite.viz.explorer.widget").explore
    raise AttributeError(f"module 'ovs_lite.viz' has no attribute {name!r}")
