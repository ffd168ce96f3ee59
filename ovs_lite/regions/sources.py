"""Where masks come from: one signature for ground truth, classical proposals and learned ones.

A mask source is a function `source(image, budget) -> masks`.
image: (H, W, 3) uint8 RGB.
budget: how many masks are wanted at most.
masks: (N <= budget, H, W) float in [0, 1], best first; where one exceeds 0.5 the pixel is in the region. N may be 0.

`MaskProposer.propose` is one, so what measures or names regions takes any of them.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ovs_lite.data.images import read_image
from ovs_lite.data.segments import record_masks
from ovs_lite.regions.classical import grid_masks, proposals, slic_masks, slic_merges

MaskSource = Callable[[np.ndarray, int], torch.Tensor]


def ground_truth(record: Mapping[str, Any]) -> MaskSource:
    """The record's labelled segments as a source, in the record's order; it ignores the image that it is given.

    Void, unlabelled segments (category -1) and crowds are no regions. Raises ValueError without segments.
    """
    if record["segments"] is None:
        raise ValueError(f"record {record['image_id']!r} has no segments, expected an annotated image")
    return lambda image, budget: torch.from_numpy(record_masks(record)[0][:budget]).float()


def ground_truths(records: Iterable[Mapping[str, Any]]) -> MaskSource:
    """The labelled segments of all records as one source, which knows each image by its pixels.

    Raises ValueError for a record without segments, and, when asked, for an image of none of the records.
    """
    known = {_key(np.array(read_image(record["image"]))): record for record in records}
    sources = {key: ground_truth(record) for key, record in known.items()}

    def masks(image: np.ndarray, budget: int) -> torch.Tensor:
        if _key(image) not in sources:
            raise ValueError(f"got an image {image.shape} of none of the {len(sources)} records, expected one as it is")
        return sources[_key(image)](image, budget)

    return masks


def _key(image: np.ndarray) -> tuple[Any, ...]:
    return image.shape, image.tobytes()


def checked_masks(masks: Any, image: np.ndarray, name: str) -> torch.Tensor:
    """What the source called `name` gave for an image, as (N, H, W) float32 in [0, 1] on its device.

    masks: a tensor or NumPy array, bool or soft. Raises ValueError for masks of another size than the image, of
    another type, or with values outside [0, 1].
    """
    masks = torch.as_tensor(masks)
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"{name} gave masks {tuple(masks.shape)}, expected (N, {image.shape[0]}, {image.shape[1]})")
    if not _in_unit_range(masks):
        values = f" between {masks.min():.3g} and {masks.max():.3g}" if len(masks) else ""
        raise ValueError(f"{name} gave masks of {masks.dtype}{values}, expected bool or float in [0, 1]")
    return masks.float()


def _in_unit_range(masks: torch.Tensor) -> bool:
    """Whether all values are bool, or numbers from 0 to 1."""
    if masks.dtype == torch.bool or not masks.is_floating_point() or not masks.numel():
        return masks.dtype == torch.bool or masks.is_floating_point()
    low, high = masks.aminmax()  # NaN where there is one
    return bool(low >= 0) and bool(high <= 1)


def _source(masks: Callable[[np.ndarray, int], np.ndarray]) -> MaskSource:
    """(image, budget) -> (N, H, W) bool NumPy masks, best first, as a source."""
    return lambda image, budget: torch.from_numpy(masks(image, budget)).float()


def on_a_grid(source: MaskSource, stride: int) -> MaskSource:
    """A source whose masks are kept as shares of cells of stride x stride pixels, and enlarged bilinearly again.

    What a network that predicts at that stride could say of the same regions. Raises ValueError for a stride below 1.
    """
    if stride < 1:
        raise ValueError(f"got stride={stride}, expected at least 1 pixel")

    def masks(image: np.ndarray, budget: int) -> torch.Tensor:
        fine, size = source(image, budget).float(), image.shape[:2]
        if len(fine) == 0:
            return fine
        cells = F.interpolate(fine[None], [max(1, round(side / stride)) for side in size], mode="area")
        return F.interpolate(cells, size, mode="bilinear", align_corners=False)[0]

    return masks


def in_quarters(source: MaskSource, enlarge: bool = True) -> MaskSource:
    """A source that is shown the four quarters of an image one by one, each enlarged to the image's size.

    Things are then twice as large to it. Each quarter gets a fourth of the budget, at least 1; no mask crosses the
    quarters' edges. enlarge=False: quarters as they are, so things keep their size.
    """

    def masks(image: np.ndarray, budget: int) -> torch.Tensor:
        height, width = image.shape[:2]
        found = []
        for rows in (slice(0, height // 2), slice(height // 2, height)):
            for columns in (slice(0, width // 2), slice(width // 2, width)):
                if 0 in image[rows, columns].shape:  # of an image of one row or column
                    continue
                quarter = Image.fromarray(image[rows, columns])
                shown = quarter.resize((width, height), Image.Resampling.BICUBIC) if enlarge else quarter
                large = source(np.asarray(shown), max(1, budget // 4))
                whole = torch.zeros(len(large), height, width)
                if len(large):
                    size = (quarter.height, quarter.width)
                    whole[:, rows, columns] = F.interpolate(large[None].float(), size, mode="area")[0]
                found.append(whole)
        longest = max(map(len, found))
        ranked = [some[rank] for rank in range(longest) for some in found if rank < len(some)]  # best first
        return torch.stack(ranked[:budget]) if ranked else torch.zeros(0, height, width)

    return masks


# The classical rows of a proposal-recall table.
CLASSICAL: dict[str, MaskSource] = {
    "felzenszwalb": _source(partial(proposals, scales=[50.0 * 2**step for step in range(7)], counts=(), sigma=0.5)),
    "SLIC merges": _source(slic_merges),
}

# The baselines of the grid of mask sources and classifiers.
BASELINES: dict[str, MaskSource] = {
    "classical proposals": _source(proposals),
    "superpixels": _source(lambda image, budget: slic_masks(image)[:budget]),
    "grid": _source(lambda image, budget: grid_masks(image)[:budget]),
}
