"""Type words at a picture, get masks: `load` a method, `segment` a picture, look at the `Segmentation`.

K queries, H W pixels of the upright picture, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovs_lite.checkpoints import check_checkpoint, load_method
from ovs_lite.clip import load_clip
from ovs_lite.data.images import read_image
from ovs_lite.files import replacing
from ovs_lite.inference import Window, enlarge, label_pixels, segment_scores
from ovs_lite.methods import Method
from ovs_lite.methods.groupvit import CHECKPOINT, GroupVit, load_groupvit
from ovs_lite.viz.overlay import overlay

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_QUALITY = 92
DEFAULT_CLIP = ("ViT-Lite-8", "lite")
MAX_SCORES = 10**9  # K * H * W float32 values, 4 GB


@dataclass(frozen=True)
class Segmentation:
    """One segmented picture.

    labels: (H, W) int64, index into `queries`, -1 where `background` said so. logits: (K, H, W) float32 scores of the
    method (cosines for maskclip and clip-cam). queries: K names. image: the picture as read, PIL RGB, upright.
    """

    labels: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    queries: list[str]
    image: Image.Image

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The picture with colours, contours, names and, underneath, a legend; see `ovs_lite.viz.overlay`."""
        return overlay(self.image, self.labels, self.queries, alpha, legend)

    def save(self, path: str | Path) -> None:
        """Write the overlay as PNG or JPEG, by the path's suffix; a crash leaves no half-written file.

        Raises ValueError for another suffix and FileNotFoundError for a folder that does not exist.
        """
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"got {str(path)!r}, expected a file name that ends in {', '.join(FORMATS)}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent}; create it first")
        with replacing(path) as temporary:
            self.overlay().save(temporary, FORMATS[path.suffix.lower()], quality=JPEG_QUALITY)


class Segmenter:
    """A method with its CLIP, ready to segment. Built by `load`."""

    def __init__(self, method: Method):
        self.method = method.eval()
        self.clip = method.clip

    @property
    def name(self) -> str:
        """Name of the method, one of `ovs_lite.methods.METHODS`."""
        return self.method.name

    def segment(
        self,
        image: Any,
        queries: str | Sequence[str],
        background: float | None = None,
        *,
        templates: str | None = None,
        window: Window | None = None,
        **options: Any,
    ) -> Segmentation:
        """Find the queries in a picture.

        image: path, PIL image or array, (H, W, 3) uint8 RGB or what else `ovs_lite.data.images.read_image` takes.
        queries: names, or one string with commas between them; every pixel goes to the best one. background: pixels
        whose best score is lower get label -1 (scores are cosines for maskclip and clip-cam, probabilities for tcl).
        templates: prompt set of `ovs_lite.data.prompts`, default the method's. window: sizes of the sliding window.
        options: the method's own, given to `predict`.
        Raises ValueError or FileNotFoundError that names what is wrong.
        """
        names = parse_queries(queries)
        if background is not None and (isinstance(background, bool) or not isinstance(background, int | float)):
            raise ValueError(f"got background={background!r}, expected None or a number to compare scores with")
        picture = read_image(image)
        if len(names) * picture.width * picture.height > MAX_SCORES:
            raise ValueError(
                f"got {len(names)} queries for a picture of {picture.width} x {picture.height} pixels, more than "
                f"{MAX_SCORES:,} scores; shrink the picture or ask for fewer names"
            )
        text = self.clip.text_embeddings(names, templates or self.method.templates)
        scores = segment_scores(self.method, picture, text, window, **options)
        logits = enlarge(scores, picture.height, picture.width)
        return Segmentation(label_pixels(logits, background), logits, names, picture)

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options: Any) -> torch.Tensor:
        """The tensor-level core: (B, 3, H, W) normalised, (K, D) -> (B, K, H, W) scores at input size."""
        return self.method.predict(images, text_embeddings, **options)


def load(
    name: str = "maskclip",
    checkpoint: str | Path | None = None,
    clip: str = DEFAULT_CLIP[0],
    pretrained: str | None = DEFAULT_CLIP[1],
    device: str | torch.device | None = None,
) -> Segmenter:
    """A method by name on a CLIP of your choice.

    name: one of `ovs_lite.methods.METHODS`, or "groupvit", which needs the extra [baselines] and takes a folder or a
    hub name as checkpoint and no CLIP. checkpoint: the method's own trained weights, default the shipped ones
    (which belong to ViT-Lite-8). clip, pretrained: see
    `ovs_lite.clip.load_clip`; of the shipped ones ViT-Lite-8 sees 16 x 16 patches of a drawing where ConvNeXt-Lite
    sees 4 x 4 cells; ("ViT-B-16", "openai") for photos. device: default the GPU where there is one.
    Raises ValueError for unknown names and for a checkpoint of a method that trains nothing, FileNotFoundError for
    missing weights.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == GroupVit.name:  # a network of its own, not a method on a CLIP
        if (clip, pretrained) != DEFAULT_CLIP:
            raise ValueError(f"got clip={clip!r}, pretrained={pretrained!r}, but groupvit has an encoder of its own")
        return Segmenter(load_groupvit(str(checkpoint or CHECKPOINT), device))
    check_checkpoint(name, checkpoint)  # told before a CLIP is loaded
    return Segmenter(load_method(name, load_clip(clip, pretrained, device), checkpoint))


def parse_queries(queries: str | Sequence[str]) -> list[str]:
    """Names as given, without blanks at their ends; one string is split at its commas.

    Raises ValueError for no name, an empty one, one that is not text, and for doubles (upper or lower case is no
    difference to CLIP's tokenizer).
    """
    given = queries.split(",") if isinstance(queries, str) else queries
    if not isinstance(given, Sequence) or not given or not all(isinstance(name, str) for name in given):
        raise ValueError(f"got queries {queries!r}, expected names such as ['cat', 'grass'] or 'cat, grass'")
    names = [" ".join(name.split()) for name in given]
    if "" in names:
        raise ValueError(f"got an empty name in queries {queries!r}, expected words")
    lower = [name.lower() for name in names]
    doubles = sorted({name for name in names if lower.count(name.lower()) > 1})
    if doubles:
        raise ValueError(f"got {', '.join(map(repr, doubles))} more than once in queries, expected each name once")
    return names
