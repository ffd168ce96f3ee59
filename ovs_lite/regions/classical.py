"""Mask proposals without learning: scikit-image's graph segmentation and superpixels, alone or merged step by step.

Partitions at several scales stand for the imperfect mask source of OVSeg's bottleneck analysis (Fig. 1c; the paper
takes a MaskFormer). In hierarchical grouping superpixels merge, the most similar neighbours first, and each union is a
mask; the merging is `skimage.graph.merge_hierarchical`. Selective Search (Uijlings et al., IJCV 2013, Algorithm 1)
groups so too, with more similarities; here it stands for MCG and COB, the rows that OpenSeg's Table 1 compares with.
Deterministic: no seed, same image, same masks.

N masks, R superpixels, C colour channels, H W pixels of the image, h w pixels after resizing. Images are (H, W, 3)
uint8 RGB; masks are bool.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.color import rgb2lab
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import felzenszwalb, slic

from ovs_lite.regions.ranking import take_turns

FELZENSZWALB_SCALES = (50.0, 200.0, 800.0)
SLIC_COUNTS = (8, 32)
MAX_SIDE = 256  # larger images are segmented at this size and their masks resized back: time grows with pixels
SMALLEST = 0.001  # share of the pixels below which a region is merged (felzenszwalb) or dropped (proposals)
SHARE = 64  # how many masks a hierarchy gives
LEVELS = ((128, 80.0), (384, 40.0))  # of `slic_merges`, chosen on icon-coco's train split


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


def slic_merges(
    image: np.ndarray, budget: int = 128, levels: Sequence[tuple[int, float]] = LEVELS, max_side: int = MAX_SIDE
) -> np.ndarray:
    """SLIC superpixels (Achanta et al., PAMI 2012) merged by mean CIELAB colour: (N, H, W) bool, N <= budget.

    image: (H, W, 3) uint8 RGB.
    levels: (about how many superpixels, compactness: larger makes squarer ones) of each hierarchy.
    A hierarchy gives its last 64 masks, the last union, which is all of the image, first; the first hierarchy's come
    before the second's, so that a small budget is spent on one consistent set of large regions. None empty, no
    duplicates. Raises ValueError for another image, a budget below 1 and without levels.
    """
    if not levels:
        raise ValueError("got no levels, expected at least one pair of superpixels and compactness")
    small, found = downsized(image, max_side), []
    for count, compactness in levels:
        labels = slic(small, n_segments=count, compactness=compactness, start_label=0)
        nodes = merge_by_colour(labels, rgb2lab(small))
        found += [np.isin(labels, node) for node in nodes[: -SHARE - 1 : -1]]
    return resized_back(take_turns([found], budget), image)


def merge_by_colour(labels: np.ndarray, colours: np.ndarray) -> list[list[int]]:
    """Unite the two neighbours whose union adds the least squared colour error until one region is left (Ward, 1963).

    labels: (h, w) region numbers, R different ones; neighbours share an edge of a pixel.
    colours: (h, w, C).
    Returns 2R - 1 lists of region numbers: each region alone, ascending, then the unions in the order of merging.
    """
    graph, nodes = RAG(), []
    regions, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = [np.bincount(places.ravel(), channel.ravel()) for channel in np.moveaxis(colours, -1, 0)]
    for region, size, colour in zip(regions.tolist(), sizes.tolist(), np.stack(sums, 1), strict=True):
        graph.add_node(region, labels=[region], size=size, colour=colour)
        nodes.append([region])
    graph.add_edges_from(_neighbours(labels))
    for first, second, edge in graph.edges(data=True):
        edge["weight"] = _added_error(graph, first, second)

    def unite(graph: RAG, source: int, target: int) -> None:
        nodes.append(graph.nodes[source]["labels"] + graph.nodes[target]["labels"])
        for key in ("size", "colour"):
            graph.nodes[target][key] = graph.nodes[source][key] + graph.nodes[target][key]

    def reweight(graph: RAG, source: int, target: int, neighbour: int) -> dict[str, float]:
        return {"weight": _added_error(graph, target, neighbour)}

    merge_hierarchical(labels, graph, np.inf, False, True, unite, reweight)
    return nodes


def _neighbours(labels: np.ndarray) -> list[list[int]]:
    """Pairs of regions that share an edge of a pixel, each once; `RAG(labels)` visits every pixel in Python."""
    sides = ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], 1) for one, other in sides])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0).tolist()


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


def _added_error(graph: RAG, first: int, second: int) -> float:
    """How much uniting two regions adds to the squared error about mean colours: |gap|^2 n m / (n + m)."""
    one, other = graph.nodes[first], graph.nodes[second]
    gap = one["colour"] / one["size"] - other["colour"] / other["size"]
    return float((gap**2).sum() * one["size"] * other["size"] / (one["size"] + other["size"]))
