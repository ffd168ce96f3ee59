"""Can a CLIP name ground-truth regions, and do larger images and several sizes at once help? Uni-OVSeg, section 4.3.

The table "Multi-scale ensemble in mask-text matching": regions are pooled from CLIP's dense features at one or several
input sizes and named by the nearest text; Top-1 accuracy and seconds for an image. Several sizes: the mean of their
cosines, as the mean of cost matrices in Eq. 7. The paper pools binary masks; here a patch counts by the share of it
that the mask covers, so that no small region is without a patch. N images, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ovs_lite.clip import Clip
from ovs_lite.data.images import read_image
from ovs_lite.data.segments import record_masks
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.evaluation.measures.speed import timed
from ovs_lite.evaluation.metrics.intervals import Estimate, ratio_interval
from ovs_lite.regions.classifiers import pooled_features

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class RegionAccuracy:
    """What `region_accuracy` measured, by the sizes of a table's row, such as (64,) or (64, 96).

    right: {sizes: (N,) int64, how many regions of each image are named rightly}. regions: (N,) int64, how many it has.
    seconds: {sizes: mean seconds for the dense features of an image and pooling, texts not included}.
    """

    right: dict[Sizes, np.ndarray] = field(repr=False)
    regions: np.ndarray = field(repr=False)
    seconds: dict[Sizes, float]

    def accuracy(self, sizes: int | Sequence[int]) -> Estimate:
        """Share of all regions that are named rightly, and its 95 % interval over images."""
        return ratio_interval(self.right[self._row(sizes)], self.regions)

    def difference(self, first: int | Sequence[int], second: int | Sequence[int]) -> Estimate:
        """Accuracy at the first size or sizes minus that at the second, and its interval."""
        return ratio_interval(self.right[self._row(first)] - self.right[self._row(second)], self.regions)

    def table(self) -> dict[str, dict[str, float]]:
        """{"64, 96": {"accuracy": fraction, "seconds"}} as the paper prints it."""
        return {
            ", ".join(map(str, row)): {"accuracy": self.accuracy(row).value, "seconds": seconds}
            for row, seconds in self.seconds.items()
        }

    def _row(self, sizes: int | Sequence[int]) -> Sizes:
        row = (sizes,) if isinstance(sizes, int) else tuple(sizes)
        if row not in self.right:
            raise ValueError(f"got sizes {row}, expected one of {', '.join(map(str, self.right))}")
        return row


@torch.no_grad()
def region_accuracy(
    clip: Clip,
    records: Iterable[Mapping[str, Any]],
    vocabulary: Vocabulary,
    sizes: Sequence[int],
    ensembles: Sequence[Sequence[int]] | None = None,
    templates: str = "vild14",
) -> RegionAccuracy:
    """Name every labelled segment of the records at several input sizes, and by several sizes together.

    records: with segments of the vocabulary's class ids; crowds and unlabelled segments are left out.
    sizes: short sides in pixels, each a row.
    ensembles: more rows, of several sizes each; default one of all sizes, where there are two or more.
    Raises ValueError for sizes below 1 or given twice, for ensembles of other sizes, and for records without one
    labelled segment.
    """
    sizes = tuple(sizes)
    together = [sizes][: len(sizes) - 1] if ensembles is None else [tuple(some) for some in ensembles]
    rows = list(dict.fromkeys([*((size,) for size in sizes), *together]))
    known = bool(sizes) and all(row and set(row) <= set(sizes) for row in rows)
    if not known or min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise ValueError(f"got sizes {sizes} and ensembles {together}, expected different sizes and ensembles of them")
    text = clip.text_embeddings(list(vocabulary.names), templates)
    right, regions, seconds = {row: [] for row in rows}, [], dict.fromkeys(sizes, 0.0)
    for record in records:
        masks, labels = map(torch.from_numpy, record_masks(record))
        pixels = torch.from_numpy(np.array(read_image(record["image"]))).permute(2, 0, 1)
        image, masks = clip.normalise(pixels.to(clip.device) / 255), masks.to(clip.device)
        cosines = {}
        for size in sizes if len(labels) else ():
            pooled, passed = timed(partial(pooled_features, clip, image, masks, size), clip.device)
            cosines[size] = (pooled @ text.T).cpu()
            seconds[size] += passed
        for row, found in right.items():
            named = torch.stack([cosines[size] for size in row]).mean(0).argmax(1) if len(labels) else labels
            found.append(int((named == labels).sum()))
        regions.append(len(labels))
    if not sum(regions):
        raise ValueError(f"got {len(regions)} records of {vocabulary.name!r} without a labelled segment, expected some")
    shown = sum(count > 0 for count in regions)
    taken = {row: sum(seconds[size] for size in row) / shown for row in rows}
    return RegionAccuracy({row: np.array(found) for row, found in right.items()}, np.array(regions), taken)
