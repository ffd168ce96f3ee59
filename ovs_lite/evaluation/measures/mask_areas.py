"""How large soft masks are, apart for classes that are in the picture and classes that are not.

TCL's area loss (Cha et al., CVPR 2023, Eq. 10) is about these two numbers: without it masks spread or vanish.
N pictures, K classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovs_lite.data.images import read_image
from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.methods import Method


@dataclass(frozen=True)
class MaskAreas:
    """Mean area of masks, in [0, 1].

    present: of classes in the image's ground truth. truth: what these classes really cover.
    absent: of all other classes. absent_by_image: (N,) the same for each image; NaN where no class is absent.
    """

    present: float
    truth: float
    absent: float
    absent_by_image: tuple[float, ...] = field(repr=False, default=())


@torch.no_grad()
def mean_mask_areas(
    method: Method, records: Iterable[Mapping[str, Any]], vocabulary: Vocabulary, **options
) -> MaskAreas:
    """Areas of a method's scores, which must be probabilities, at twice CLIP's size (warped to a square).

    A background class is left out. options: the method's own. Raises ValueError where no picture has a labelled class.
    """
    clip = method.clip
    asked = [index for index in range(len(vocabulary)) if index != vocabulary.background]
    texts = clip.text_embeddings([vocabulary.names[index] for index in asked], method.templates)
    rows: dict[str, list[float]] = {"present": [], "truth": [], "absent": []}
    by_image = []
    for record in records:
        image: Image.Image = read_image(record["image"])
        areas = method.predict(clip.preprocess(image, 2 * clip.image_size), texts, **options)[0].mean((1, 2)).tolist()
        true = {info["category_id"]: 0.0 for info in record["segments_info"]}
        for info in record["segments_info"]:
            true[info["category_id"]] += info["area"] / (image.width * image.height)
        absent = [area for index, area in zip(asked, areas, strict=True) if index not in true]
        rows["present"] += [area for index, area in zip(asked, areas, strict=True) if index in true]
        rows["absent"] += absent
        by_image.append(_mean(absent))
        rows["truth"] += [true[index] for index in asked if index in true]
    if not rows["present"]:
        raise ValueError(f"got no picture with a class of {vocabulary.name!r}, expected at least one")
    return MaskAreas(*map(_mean, rows.values()), tuple(by_image))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
