"""One segmented image: what `ovs_lite.Segmenter.segment` returns. K queries, H W pixels of the upright image."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovs_lite.viz.image_files import save_image
from ovs_lite.viz.overlay import overlay


@dataclass(frozen=True)
class Segmentation:
    """One segmented image.

    labels: (H, W) int64, index into `queries`, -1 where `background` said so.
    logits: (K, H, W) float32 scores of the method (cosines for maskclip and clip-cam). Of a large vocabulary they are
        brought to the image's size when they are first read: 150 words of 448 x 448 pixels are 120 MB.
    queries: K names; of a query with several phrases, "cat|kitten", the first.
    image: as read, PIL RGB, upright.
    """

    labels: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    queries: list[str]
    image: Image.Image

    @classmethod
    def with_late_logits(
        cls, labels: np.ndarray, make: Callable[[], np.ndarray], queries: list[str], image: Image.Image
    ) -> "Segmentation":
        """One whose logits are what `make()` returns, called at their first reading."""
        made = cls(labels, np.empty(0), queries, image)
        del made.__dict__["logits"]
        made.__dict__["_make_logits"] = make
        return made

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not there, or not yet."""
        make = self.__dict__.get("_make_logits")
        if name != "logits" or make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__["logits"] = make()
        self.__dict__.pop("_make_logits", None)  # and the smaller scores that it holds
        return self.__dict__["logits"]

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The image with colours, contours, names and, underneath, a legend; see `ovs_lite.viz.overlay`."""
        return overlay(self.image, self.labels, self.queries, alpha, legend)

    def save(self, path: str | Path) -> None:
        """Write the overlay as PNG or JPEG, by the path's suffix; a crash leaves no half-written file.

        Raises ValueError for another suffix, FileNotFoundError for a folder that does not exist, OSError else.
        """
        save_image(self.overlay(), path)
