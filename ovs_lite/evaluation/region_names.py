"""Does a method name ground-truth regions rightly, and how alike are regions of different classes to it?

For questions about names alone, such as whether an alignment (Uni-OVSeg, Wang et al., 2024, Eq. 8) collapses: regions
that all move to one place are alike whatever they show. (`region_accuracy`: a CLIP at several input sizes, and what
those cost.) N images, M regions of one, K classes, D embedding.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ovs_lite.data.images import read_image
from ovs_lite.data.segments import record_masks
from ovs_lite.evaluation.metrics.intervals import Estimate, ratio_interval

# image (1, 3, H, W) RGB in [0, 1] and masks (1, M, H, W) bool -> embeddings (1, M, D) of any length
Embed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NamedRegions:
    """What `name_regions` found.

    right: (N,) int64, how many regions of each image are named rightly. regions: (N,) int64, how many it has.
    apart: the mean cosine of two regions of different classes, of all images; NaN where there is one class only.
    """

    right: np.ndarray = field(repr=False)
    regions: np.ndarray = field(repr=False)
    apart: float

    def accuracy(self) -> Estimate:
        """Share of all regions that are named rightly, and its 95 % interval over images."""
        return ratio_interval(self.right, self.regions)

    def difference(self, other: "NamedRegions") -> Estimate:
        """This share minus another method's on the same regions, image by image, and its interval.

        Raises ValueError for other regions.
        """
        if not np.array_equal(self.regions, other.regions):
            given = f"{other.regions.sum()} regions in {len(other.regions)} images"
            raise ValueError(f"got {given}, expected the same {self.regions.sum()} in {len(self.regions)}")
        return ratio_interval(self.right - other.right, self.regions)


@torch.no_grad()
def name_regions(embed: Embed, records: Iterable[Mapping[str, Any]], text: torch.Tensor) -> NamedRegions:
    """Name every labelled segment of the records by the nearest of K texts. text: (K, D), of any length.

    records: with segments of the K classes; crowds and unlabelled segments are left out. An image without any is not
    asked about. Raises ValueError for records without one labelled segment, and for one whose masks have no labels.
    """
    found, labels = [], []
    for record in records:
        masks, own = record_masks(record)
        image = torch.from_numpy(np.array(read_image(record["image"]))).permute(2, 0, 1)[None].to(text.device) / 255
        ready = torch.from_numpy(masks).to(text.device)[None]
        found.append(F.normalize(embed(image, ready)[0].float(), dim=1) if len(own) else text[:0].float())
        labels.append(torch.as_tensor(own, device=text.device))
        if (own < 0).any():
            raise ValueError(f"record {record['image_id']!r} has masks without labels, expected labelled segments")
    regions = np.array([len(own) for own in labels], np.int64)
    if not regions.sum():
        raise ValueError(f"got {len(regions)} records without a labelled segment, expected at least one segment")
    words = F.normalize(text.float(), dim=1)
    right = [int(((z @ words.T).argmax(1) == own).sum()) for z, own in zip(found, labels, strict=True)]
    z, own = torch.cat(found), torch.cat(labels)
    return NamedRegions(np.array(right, np.int64), regions, float((z @ z.T)[own[:, None] != own].mean()))
