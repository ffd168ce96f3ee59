"""Mask proposals by hierarchical grouping: superpixels merge, the most similar neighbours first; each union is one.

The merging is scikit-image's (`skimage.graph.merge_hierarchical`). Selective Search (Uijlings et al., IJCV 2013,
Algorithm 1) groups so too, with more similarities; here it stands for MCG and COB, the rows that OpenSeg's Table 1
compares with. Nothing is learned or random: same image, same masks.

R superpixels, N masks, H W pixels of the image, h w pixels after resizing, C colour channels.
"""

from collections.abc import Sequence

import numpy as np
from skimage.color import rgb2lab
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import slic

from ovs_lite.regions.classical import MAX_SIDE, downsized, resized_back
from ovs_lite.regions.ranking import take_turns

SHARE = 64  # how many masks a hierarchy gives
LEVELS = ((128, 80.0), (384, 40.0))  # chosen on icon-coco's train split


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
    graph, nodes = RAG(labels, connectivity=1), []
    for region in np.unique(labels).tolist():
        inside = colours[labels == region]
        graph.add_node(region, labels=[region], size=len(inside), colour=inside.sum(0))
        nodes.append([region])
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


def _added_error(graph: RAG, first: int, second: int) -> float:
    """How much uniting two regions adds to the squared error about mean colours: |gap|^2 n m / (n + m)."""
    one, other = graph.nodes[first], graph.nodes[second]
    gap = one["colour"] / one["size"] - other["colour"] / other["size"]
    return float((gap**2).sum() * one["size"] * other["size"] / (one["size"] + other["size"]))
