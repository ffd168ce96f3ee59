"""Looking at things: overlays and contact sheets (PIL), figures (matplotlib), one palette for all of them."""

from ovs_lite.viz.overlay import alt_text, overlay
from ovs_lite.viz.palette import colour, colours
from ovs_lite.viz.sheets import contact_sheet, mask_sheet

__all__ = ["alt_text", "colour", "colours", "contact_sheet", "mask_sheet", "overlay"]
