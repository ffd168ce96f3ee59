"""Mask proposals by hierarchical grouping: regions merge, the most similar neighbours first; every union is a proposal.

`merge_all` is the grouping of Selective Search (Uijlings et al., IJCV 2013, Algorithm 1). `slic_merges` gives it
superpixels and their mean colours, `selective_search` graph segments and the paper's four similarities. They stand for
MCG and COB, the rows that OpenSeg's Table 1 compares with. Nothing is learned or random: same picture, same masks.

R starting regions, N masks, H W pixels of the picture, h w pixels after shrinking, P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.color import rgb2hsv, rgb2lab
from skimage.segmentation import felzenszwalb, slic

from ovs_lite.regions.classical import MAX_SIDE, enlarged, shrunk, smallest_region

BUDGET = 128
COLOUR_BINS, TEXTURE_BINS = 25, 10  # per channel; per channel and direction
DIRECTIONS = 8
# Colour spaces, each channel in [0, 1]: (h, w, 3) uint8 RGB -> (h, w, 3) float.
SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rgb": lambda image: image / 255,
    "hsv": rgb2hsv,
    "lab": lambda image: np.clip((rgb2lab(image) + [0, 128, 128]) / [100, 256, 256], 0, 1),
}


@dataclass
class Regions:
    """What similarities look at. Rows 0..R-1 are the starting regions, row R + m is the union that merge m makes.

    sizes: (2R-1,) pixels. sums: (2R-1, D) features summed over a region's pixels. boxes: (2R-1, 4) bounding boxes as
    -top, -left, bottom, right (the latter two exclusive), so that a union's box is the maximum. shape: (h, w).
    """

    sizes: np.ndarray
    sums: np.ndarray
    boxes: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def start(cls, labels: np.ndarray, sums: np.ndarray) -> "Regions":
        """labels: (h, w), every number of 0..R-1 present. sums: (R, D). The rows of the unions are zero."""
        corners = [(-y.start, -x.start, y.stop, x.stop) for y, x in ndimage.find_objects(labels + 1)]
        arrays = np.bincount(labels.ravel()), sums, np.array(corners)
        room = len(sums) - 1
        return cls(*(np.pad(a.astype(float), [(0, room)] + [(0, 0)] * (a.ndim - 1)) for a in arrays), labels.shape)

    def unite(self, first: int, second: int, union: int) -> None:
        """Fill row `union`. Adding sums averages means and histograms by size (IJCV 2013, Eq. 2)."""
        for array in (self.sizes, self.sums):
            array[union] = array[first] + array[second]
        self.boxes[union] = np.maximum(self.boxes[first], self.boxes[second])


# (regions, first (P,), second (P,)) -> (P,), larger is more similar; symmetric.
Similarity = Callable[[Regions, np.ndarray, np.ndarray], np.ndarray]


def merge_all(labels: np.ndarray, regions: Regions, similarity: Similarity) -> np.ndarray:
    """Unite the most similar two neighbours until one region is left (Algorithm 1): (2R-1, R) bool, see `Regions`.

    Row n, column r: whether node n holds starting region r. labels: (h, w); neighbours share an edge of a pixel, and
    of equally similar pairs the one that met first goes first. regions: from `Regions.start`; its unions are filled in.
    """
    nodes, count = len(regions.sizes), labels.max() + 1
    inside = np.eye(nodes, count, dtype=bool)
    pairs = _touching(labels)
    values = similarity(regions, *pairs.T)
    for union in range(count, nodes):
        first, second = pairs[values.argmax()]
        regions.unite(first, second, union)
        inside[union] = inside[first] | inside[second]
        merged = (pairs == first) | (pairs == second)
        gone = merged.any(1)
        others = np.unique(pairs[gone[:, None] & ~merged])
        met = np.stack([others, np.full_like(others, union)], 1)
        pairs = np.concatenate([pairs[~gone], met])
        values = np.concatenate([values[~gone], similarity(regions, *met.T)])
    return inside


def colour_similarity(regions: Regions, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Likeness of mean colours, (P,) <= 0: minus the squared error that a union adds (Ward, JASA 1963). sums: colour.

    The squared distance of the means times the product of the sizes over their sum: small regions merge earlier.
    """
    sizes, others = regions.sizes[first], regions.sizes[second]
    gap = regions.sums[first] / sizes[:, None] - regions.sums[second] / others[:, None]
    return -(gap**2).sum(1) * sizes * others / (sizes + others)


def paper_similarity(weights: Sequence[float] = (1, 1, 1, 1)) -> Similarity:
    """Colour, texture, size and fill, weighted by a1..a4 and added (IJCV 2013, Eq. 6), each in [0, 1].

    Eq. 1 and 3: intersection of the normalised histograms. Eq. 4: 1 minus the union's share of the picture. Eq. 5: 1
    minus the share of what the union's bounding box has beyond it. Needs the sums of `histogram_sums`.
    """
    if len(weights) != 4:
        raise ValueError(f"got weights={weights}, expected 4 numbers: colour, texture, size, fill")

    def similarity(regions: Regions, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        common = np.minimum(*(regions.sums[i] / regions.sizes[i, None] for i in (first, second)))
        colour, texture = np.split(common, [3 * COLOUR_BINS], 1)
        sizes = regions.sizes[first] + regions.sizes[second]
        top, left, bottom, right = np.maximum(regions.boxes[first], regions.boxes[second]).T
        box, pixels = (top + bottom) * (left + right), regions.shape[0] * regions.shape[1]
        parts = colour.sum(1) / 3, texture.sum(1) / (3 * DIRECTIONS), 1 - sizes / pixels, 1 - (box - sizes) / pixels
        return np.dot(weights, parts)

    return similarity


def histogram_sums(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Each region's counts of colours, then of textures: (h, w), (h, w, 3) in [0, 1] -> (R, 75 + 240) (section 3.2).

    Texture: Gaussian derivatives (sigma 1) in 8 directions per channel, negative ones cut off. The paper does not say
    which range its 10 bins divide: here it ends at the derivative of a step from 0 to 1.
    """
    down, right = (ndimage.gaussian_filter(colours, (1, 1, 0), order) for order in ((1, 0, 0), (0, 1, 0)))
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    slopes = np.concatenate([np.cos(angle) * right + np.sin(angle) * down for angle in angles], 2)
    texture = np.clip(slopes * np.sqrt(2 * np.pi), 0, 1)
    return np.concatenate([_counts(labels, colours, COLOUR_BINS), _counts(labels, texture, TEXTURE_BINS)], 1)


def slic_merges(
    image: np.ndarray,
    budget: int = BUDGET,
    counts: Sequence[int] = (128, 512),
    compactness: float = 40.0,
    max_side: int = MAX_SIDE,
) -> np.ndarray:
    """SLIC superpixels (Achanta et al., PAMI 2012) merged by mean CIELAB colour: (N, H, W) bool, N <= budget.

    image: (H, W, 3) uint8 RGB. counts: about how many superpixels, one hierarchy for each. compactness: larger makes
    squarer ones. The last unions come first, as in `selective_search`; none empty, none twice.
    """
    small = shrunk(image, max_side)
    colours, hierarchies = rgb2lab(small), []
    for count in counts:
        labels = slic(small, n_segments=count, compactness=compactness, start_label=0)
        labels = np.unique(labels, return_inverse=True)[1]  # numbers without gaps
        sums = np.stack([np.bincount(labels.ravel(), channel.ravel()) for channel in np.moveaxis(colours, 2, 0)], 1)
        hierarchies.append((labels, merge_all(labels, Regions.start(labels, sums), colour_similarity)))
    return _last_first(hierarchies, image, budget)


def selective_search(
    image: np.ndarray,
    budget: int = BUDGET,
    scales: Sequence[float] = (50.0,),
    spaces: Sequence[str] = ("hsv", "lab"),
    weights: Sequence[float] = (1, 1, 1, 1),
    sigma: float = 0.5,
    max_side: int = MAX_SIDE,
) -> np.ndarray:
    """Selective Search (Uijlings et al., IJCV 2013, section 3) with few strategies: (N, H, W) bool, N <= budget.

    image: (H, W, 3) uint8 RGB. spaces ("hsv", "lab", "rgb") times scales (the k of the graph segmentation that gives
    the starting regions): one hierarchy for each. sigma: the blur before, in pixels. weights: a1..a4 of Eq. 6. The last
    unions come first, none empty, none twice. Raises ValueError for an unknown space or nothing to do.

    Departures: the proposals are the regions, not their boxes. Section 3.3 ranks by the position in the hierarchy (the
    whole picture is 1) times a random number; here by the position alone, the hierarchies in turn, which needs no seed
    and finds more when few masks count. 2 strategies, where the paper's "fast" takes 8. Made for smaller pictures:
    sigma 0.5 instead of 0.8, and starting regions of at least 0.1 % of the pixels.
    """
    unknown = [space for space in spaces if space not in SPACES]
    if unknown:
        raise ValueError(f"got colour spaces {unknown}, expected some of {', '.join(SPACES)}")
    small, similarity, hierarchies = shrunk(image, max_side), paper_similarity(weights), []
    for colours in (SPACES[space](small) for space in spaces):
        for scale in scales:
            labels = felzenszwalb(colours, scale=scale, sigma=sigma, min_size=smallest_region(small))
            regions = Regions.start(labels, histogram_sums(labels, colours))
            hierarchies.append((labels, merge_all(labels, regions, similarity)))
    return _last_first(hierarchies, image, budget)


def _last_first(hierarchies: list[tuple[np.ndarray, np.ndarray]], image: np.ndarray, budget: int) -> np.ndarray:
    """(labels, inside) of each hierarchy -> (N, H, W): the last unions first, the hierarchies in turn."""
    if budget < 1:
        raise ValueError(f"got budget={budget}, expected at least 1")
    if not hierarchies:
        raise ValueError("got nothing to start from, expected at least one count, or one space and one scale")
    chosen: dict[bytes, np.ndarray] = {}
    for turn in range(1, 1 + max(len(inside) for _, inside in hierarchies)):
        for labels, inside in hierarchies:
            if turn <= len(inside) and len(chosen) < budget:
                mask = inside[-turn][labels]
                chosen.setdefault(np.packbits(mask).tobytes(), mask)
    return enlarged(np.stack(list(chosen.values())), image)


def _touching(labels: np.ndarray) -> np.ndarray:
    """(h, w) -> (P, 2): the pairs of regions that share an edge of a pixel, smaller number first, each once."""
    sides = (labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)


def _counts(labels: np.ndarray, channels: np.ndarray, bins: int) -> np.ndarray:
    """Histograms of each region: (h, w), (h, w, D) in [0, 1] -> (R, D * bins) pixels."""
    depth, count = channels.shape[2], labels.max() + 1
    index = (labels[..., None] * depth + np.arange(depth)) * bins + np.minimum((channels * bins).astype(int), bins - 1)
    return np.bincount(index.ravel(), minlength=count * depth * bins).reshape(count, -1)
