"""Mask proposals without learning: scikit-image's graph segmentation and superpixels, at several scales.

They stand for the imperfect mask source of OVSeg's bottleneck analysis (Fig. 1c; the paper takes a MaskFormer) and are
the classical rows of the proposal-recall tables. Deterministic: no seed, same image, same masks.

N masks, H W pixels of the image, h w pixels after resizing. Images are (H, W, 3) uint8 RGB; masks are bool.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb, slic

from ovs_lite.regions.ranking import take_turns

FELZENSZWALB_SCALES = (50.0, 200.0, 800.0)
SLIC_COUNTS = (8, 32)
MAX_SIDE = 256  # larger images are segmented at this size and their masks resized back: time grows with pixels
SMALLEST = 0.001  # share of the pixels below which a region is merged (felzenszwalb) or dropped (proposals)


def felzenszwalb_masks(
    image: np.ndarray, scale: float = 200.0, sigma: float = 0.8, max_side: int = MAX_SIDE
) -> np.ndarray:
    """One partition of the image by Felzenszwalb and Huttenlocher (IJCV 2004): (N, H, W), largest first.

    scale: larger prefers larger regions, in units of 0..255 colour. sigma: blur before, in pixels.
    """
    small = downsized(image, max_side)
    smallest = max(1, round(SMALLEST * small.shape[0] * small.shape[1]))
    return _masks(felzenszwalb(small, scale=scale, sigma=sigma, min_size=smallest), image)


def slic_masks(image: np.ndarray, count: int = 32, compactness: float = 10.0, max_side: int = MAX_SIDE) -> np.ndarray:
    """One partition into about `count` SLIC superpixels (Achanta et al., PAMI 2012): (N, H, W), largest first."""
    return _masks(slic(downsized(image, max_side), n_segments=count, compactness=compactness, start_label=0), image)


def grid_masks(image: np.ndarray, cells: int = 4) -> np.ndarray:
    """At most cells x cells rectangles of equal size: (N, H, W), each pixel in one. Ignores the image's content."""
    height, width = _checked(image).shape[:2]
    row, column = (np.arange(side) * min(cells, side) // side for side in (height, width))
    labels = row[:, None] * cells + column
    return labels == np.unique(labels)[:, None, None]


def proposals(
    image: np.ndarray,
    budget: int = 64,
    scales: Sequence[float] = FELZENSZWALB_SCALES,
    counts: Sequence[int] = SLIC_COUNTS,
    sigma: float = 0.8,
) -> np.ndarray:
    """At most `budget` overlapping masks from all scales, (N, H, W) bool; none empty, no duplicates.

    The scales take turns, each giving its largest mask that is still new, so that a small budget holds masks of all
    sizes. Masks under 0.1 % of the image are dropped, unless they are a scale's only one. scales, sigma: as in
    `felzenszwalb_masks`; counts: as in `slic_masks`. Raises ValueError for a budget below 1 and without any scale.
    """
    partitions = [felzenszwalb_masks(image, scale, sigma) for scale in scales] + [slic_masks(image, n) for n in counts]
    if not partitions:
        raise ValueError("got neither scales nor counts, expected at least one of them")
    return take_turns([_not_tiny(masks) for masks in partitions], budget)


def downsized(image: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """The (H, W, 3) uint8 image with its longer side at most `max_side`, by box averages.

    Raises ValueError for another shape or type, or no pixels.
    """
    height, width = _checked(image).shape[:2]
    if max(height, width) <= max_side:
        return image
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def resized_back(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Maps of a downsized image, (..., h, w), at the image's own size: (..., H, W), by the nearest pixel."""
    height, width = image.shape[:2]
    rows = np.arange(height) * labels.shape[-2] // height
    columns = np.arange(width) * labels.shape[-1] // width
    return labels[..., rows[:, None], columns]


def _not_tiny(masks: np.ndarray) -> np.ndarray:
    """Masks, largest first, without those under SMALLEST, unless all are."""
    sizes = masks.sum((1, 2))
    return masks[sizes >= min(SMALLEST * masks[0].size, sizes.max())]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"got an image {image.shape} of {image.dtype}, expected (H, W, 3) uint8 RGB")
    return image


def _masks(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w) region numbers -> (N, H, W) bool at the image's size, largest first."""
    full = resized_back(labels, image)
    masks = full == np.unique(full)[:, None, None]
    return masks[np.argsort(-masks.sum((1, 2)), kind="stable")]
