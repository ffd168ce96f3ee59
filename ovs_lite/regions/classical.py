"""Mask proposals without learning: scikit-image's graph segmentation and superpixels, at several scales.

They stand for the imperfect mask source of OVSeg's bottleneck analysis (Fig. 1c; the paper takes a MaskFormer) and are
the classical rows of the proposal-recall tables. Deterministic: no seed, same picture, same masks.

N masks, H W pixels. Pictures are (H, W, 3) uint8 RGB; masks are bool.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.segmentation import felzenszwalb, slic

FELZENSZWALB_SCALES = (50.0, 200.0, 800.0)
SLIC_COUNTS = (8, 32)
MAX_SIDE = 256  # larger pictures are segmented at this size and their masks enlarged: time grows with pixels
SMALLEST = 0.001  # share of the pixels below which a region is merged (felzenszwalb) or dropped (proposals)


def felzenszwalb_masks(
    image: np.ndarray, scale: float = 200.0, sigma: float = 0.8, max_side: int = MAX_SIDE
) -> np.ndarray:
    """One partition of the picture by Felzenszwalb and Huttenlocher (IJCV 2004): (N, H, W), each pixel in one mask.

    scale: larger prefers larger regions, in units of 0..255 colour. sigma: blur before, in pixels.
    """
    small = shrunk(image, max_side)
    return _masks(felzenszwalb(small, scale=scale, sigma=sigma, min_size=smallest_region(small)), image)


def slic_masks(image: np.ndarray, count: int = 32, compactness: float = 10.0, max_side: int = MAX_SIDE) -> np.ndarray:
    """One partition into about `count` SLIC superpixels (Achanta et al., PAMI 2012): (N, H, W), each pixel in one."""
    return _masks(slic(shrunk(image, max_side), n_segments=count, compactness=compactness, start_label=0), image)


def grid_masks(image: np.ndarray, rows: int = 4, columns: int = 4) -> np.ndarray:
    """Rectangles of equal size: (N, H, W), each pixel in one; the proposals of someone who does not look."""
    height, width = _checked(image).shape[:2]
    row = np.arange(height) * min(rows, height) // height
    column = np.arange(width) * min(columns, width) // width
    labels = row[:, None] * columns + column
    return labels == np.unique(labels)[:, None, None]


def proposals(
    image: np.ndarray,
    budget: int = 64,
    scales: Sequence[float] = FELZENSZWALB_SCALES,
    counts: Sequence[int] = SLIC_COUNTS,
    sigma: float = 0.8,
) -> np.ndarray:
    """At most `budget` overlapping masks from all scales, (N, H, W) bool, largest first; none empty, none twice.

    The scales take turns, each giving its largest mask that is still new, so that a small budget holds masks of all
    sizes. Masks under 0.1 % of the picture are dropped, unless they are a scale's only one. scales, sigma: as in
    `felzenszwalb_masks`; counts: as in `slic_masks`.
    """
    if budget < 1:
        raise ValueError(f"got budget={budget}, expected at least 1")
    partitions = [felzenszwalb_masks(image, scale, sigma) for scale in scales] + [slic_masks(image, n) for n in counts]
    if not partitions:
        raise ValueError("got neither scales nor counts, expected at least one of them")
    ranked = [_by_size(masks) for masks in partitions]
    chosen: dict[bytes, np.ndarray] = {}
    for turn in range(max(len(masks) for masks in ranked)):
        for masks in ranked:
            if turn < len(masks) and len(chosen) < budget:
                chosen.setdefault(np.packbits(masks[turn]).tobytes(), masks[turn])
    return _by_size(np.stack(list(chosen.values())))


def shrunk(image: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """The (H, W, 3) uint8 picture with its longer side at most `max_side`, by box averages.

    Raises ValueError for another shape or type, or no pixels.
    """
    height, width = _checked(image).shape[:2]
    if max(height, width) <= max_side:
        return image
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def enlarged(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Maps of a shrunk picture, (..., h, w), at the picture's own size: (..., H, W), by the nearest pixel."""
    height, width = image.shape[:2]
    rows = np.arange(height) * labels.shape[-2] // height
    columns = np.arange(width) * labels.shape[-1] // width
    return labels[..., rows[:, None], columns]


def smallest_region(image: np.ndarray) -> int:
    """How many pixels a region of this picture must have: 0.1 % of all, at least 1."""
    return max(1, round(SMALLEST * image.shape[0] * image.shape[1]))


def _by_size(masks: np.ndarray) -> np.ndarray:
    """Largest first, equal ones in the order given; tiny ones dropped unless all are."""
    sizes = masks.sum((1, 2))
    kept = np.flatnonzero(sizes >= min(SMALLEST * masks[0].size, sizes.max()))
    return masks[kept[np.argsort(-sizes[kept], kind="stable")]]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"got a picture {image.shape} of {image.dtype}, expected (H, W, 3) uint8 RGB")
    return image


def _masks(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w) region numbers -> (N, H, W) bool at the picture's size."""
    full = enlarged(labels, image)
    return full == np.unique(full)[:, None, None]
