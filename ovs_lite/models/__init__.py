"""Models: where masks come from. Each gives (N, H, W) masks for a picture and knows nothing of words."""

from ovs_lite.models.classical import felzenszwalb_masks, grid_masks, proposals, slic_masks

__all__ = ["felzenszwalb_masks", "grid_masks", "proposals", "slic_masks"]
