"""Type words at an image, get masks: `load` a method, `segment` an image, look at the `Segmentation`.

`encode` keeps what a method sees in an image, so that other words cost their comparison alone (segment-anything's
`set_image` and `predict`). K queries, H W pixels of the upright image, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovs_lite.checkpoints import load_method
from ovs_lite.data.images import read_image
from ovs_lite.data.queries import called, parse_queries, phrases
from ovs_lite.inference import (
    ENLARGED_AT_ONCE,
    SlidingFeatures,
    Window,
    best_classes,
    encode_image,
    joined_classes,
    named_image,
    panoptic_image,
)
from ovs_lite.methods import Method
from ovs_lite.methods.base import check_options
from ovs_lite.methods.registry import DEFAULT_METHOD
from ovs_lite.methods.trained import DEFAULT_CLIP
from ovs_lite.regions.everything import named_regions, region_labels
from ovs_lite.regions.score_maps import enlarged
from ovs_lite.viz.segmentation import Segmentation

MAX_SCORES = 10**9  # K * H * W float32 values, 4 GB


@dataclass(frozen=True)
class EncodedImage:
    """An image and what a method sees in it, to be segmented with one set of queries after another.

    method: whose features these are.
    image: PIL RGB, upright.
    features: of all sliding windows.
    """

    method: Method
    image: Image.Image = field(repr=False)
    features: SlidingFeatures = field(repr=False)

    def segment(
        self,
        queries: str | Sequence[str],
        background: float | str | None = None,
        *,
        templates: str | None = None,
        **options: Any,
    ) -> Segmentation:
        """Find the queries in the image, which is not encoded again. Arguments and errors as `Segmenter.segment`."""
        return self._answer(_Request.of(self.method, self.image, queries, background, templates, options))

    def masks_at(self, points: Any = None, boxes: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks of prompts: (P, N, H, W) soft in [0, 1], and their predicted IoU (P, N).

        points: (P, 2) XY in pixels of the image, a pixel's centre at + 0.5; N masks for each, one for each granularity.
        boxes: (P, 4) XYXY, right and bottom edges exclusive; N = 1. Give one of the two. What all prompts share of the
        image is computed at the first of them. Raises ValueError for prompts of another shape, both or neither, and for
        a method that cannot be prompted.
        """
        return self.method.prompter.masks_at(self._seen, points, boxes)

    @cached_property
    def _seen(self) -> Any:
        return self.method.prompter.look(np.array(self.image))

    def _answer(self, request: "_Request") -> Segmentation:
        size, names, owners = (self.image.height, self.image.width), request.names, request.owners
        scores = self.features.scores(request.text, **request.options)
        if len(owners) * size[0] * size[1] <= ENLARGED_AT_ONCE or scores.device.type != "cpu":
            scores = enlarged(scores, size)  # once, for labels and logits
        best, labels = (values[0].cpu() for values in best_classes(scores, size))
        if not torch.stack(best.aminmax()).isfinite().all():  # a NaN is both
            raise ValueError(f"got scores of {self.method.name} that are NaN or infinite, expected numbers")
        labels = labels.long() if owners == list(range(len(names))) else torch.tensor(owners)[labels.long()]
        if request.threshold is not None:
            labels.masked_fill_(best.float() < request.threshold, -1)
        logits = partial(joined_classes, scores.cpu(), owners, size)
        return Segmentation.with_late_logits(labels.numpy(), logits, names, self.image)


@dataclass(frozen=True)
class _Request:
    """What is asked of an image, checked. text: (P, D) of all phrases. owners: P positions in the K names."""

    names: list[str]
    text: torch.Tensor
    owners: list[int]
    threshold: float | None
    options: dict[str, Any]

    @classmethod
    def of(cls, method: Method, image: Image.Image, queries, background, templates, options) -> "_Request":
        """Raises what `Segmenter.segment` promises, before anything is encoded but the words."""
        asked = parse_queries(queries)
        check_options(method, options)
        threshold = _threshold(background, method, options)
        every, owners = phrases(asked)
        if len(every) * image.width * image.height > MAX_SCORES:
            raise ValueError(
                f"got {len(every)} queries for an image of {image.width} x {image.height} pixels, more than "
                f"{MAX_SCORES:,} scores; shrink the image or ask for fewer names"
            )
        text = method.clip.text_embeddings(every, templates or method.templates)
        return cls([called(query) for query in asked], text, owners, threshold, options)


class Segmenter:
    """A method with its CLIP, ready to segment. Built by `load`."""

    def __init__(self, method: Method):
        if not isinstance(method, Method):
            raise ValueError(f"got a method of type {type(method).__name__}, expected what ovs_lite.methods builds")
        self.method = method.eval()
        self.clip = method.clip

    @property
    def name(self) -> str:
        """Name of the method, one of `ovs_lite.methods.METHODS`."""
        return self.method.name

    def encode(self, image: Any, *, window: Window | None = None) -> EncodedImage:
        """Look at an image once. image, window, errors: as `segment`."""
        pixels = read_image(image)
        return EncodedImage(self.method, pixels, encode_image(self.method, pixels, window))

    def segment(
        self,
        image: Any,
        queries: str | Sequence[str],
        background: float | str | None = None,
        *,
        templates: str | None = None,
        window: Window | None = None,
        **options: Any,
    ) -> Segmentation:
        """Find the queries in an image: `encode`, and `EncodedImage.segment`.

        image: path, PIL image or array, (H, W, 3) uint8 RGB or what else `ovs_lite.data.images.read_image` takes.
        queries: names, or one string with commas between them, or "@FILE" with one per line; every pixel goes to the
            best one. "cat|kitten|pet" is one name, whose score is the maximum of its phrases'.
        background: pixels whose best score is lower get label -1 (scores are cosines for maskclip and clip-cam,
            probabilities for tcl). "auto": the threshold that the method's authors give.
        templates: prompt set of `ovs_lite.data.templates`, default the method's.
        window: sizes of the sliding window, and how the image is resized.
        options: the method's own, given to `scores`.
        Raises ValueError or FileNotFoundError that names what is wrong, before the image is encoded.
        """
        pixels = read_image(image)
        request = _Request.of(self.method, pixels, queries, background, templates, options)
        return self.encode(pixels, window=window)._answer(request)

    def masks_at(self, image: Any, points: Any = None, boxes: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks of points or boxes in an image: `EncodedImage.masks_at`, without words and without encoding.

        Several prompts one after the other: look at the image once, by `encode`.
        """
        prompter = self.method.prompter
        return prompter.masks_at(prompter.look(np.array(read_image(image))), points, boxes)

    def panoptic(
        self,
        image: Any,
        queries: str | Sequence[str],
        is_thing: Sequence[bool] | None = None,
        *,
        templates: str | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Single things, and stuff, of an image: ids (H, W) int64 with 0 = void, and what each segment is.

        An entry of the list has `id`, `category_id` (an index into the queries), `area` in pixels, `bbox` as XYWH.
        image, queries, templates: as `segment`, a query being one phrase. is_thing: a flag for each query, default all
        are things; stuff of one query is one segment. options: the method's own, given to `Method.panoptic`.
        Raises ValueError as `segment`, for another number of flags, and for a method that finds no single things.
        """
        asked = parse_queries(queries)
        words, _ = phrases(asked)
        flags = [True] * len(asked) if is_thing is None else list(is_thing)
        if len(words) != len(asked) or len(flags) != len(asked):
            given = f"{len(asked)} queries of {len(words)} phrases and {len(flags)} flags"
            raise ValueError(f"got {given}, expected one phrase and one flag for each query")
        text = self.clip.text_embeddings(words, templates or self.method.templates)
        ids, infos = panoptic_image(self.method, read_image(image), text, flags, **options)
        return ids.cpu().numpy(), infos

    def everything(
        self, image: Any, queries: str | Sequence[str], *, templates: str | None = None, **settings: Any
    ) -> Segmentation:
        """All that a mask-based method proposes in an image, each region named by one of the queries.

        `queries` of the result are the R regions' names, best region first, a name as often as it was found; `labels`
        are places among them, smaller regions over larger ones, -1 where there is none; `logits` are each region's
        score inside it, else 0. image, queries, templates: as `segment`, a query being one phrase. settings: of
        `ovs_lite.regions.everything.named_regions`. Raises ValueError as `segment`, and for a pixel-based method.
        """
        asked, pixels = parse_queries(queries), read_image(image)
        words, _ = phrases(asked)
        if len(words) != len(asked):
            raise ValueError(f"got {len(asked)} queries of {len(words)} phrases, expected one phrase for each query")
        text = self.clip.text_embeddings(words, templates or self.method.templates)
        found = named_regions(*named_image(self.method, pixels, text), **settings)
        labels = region_labels(found, (pixels.height, pixels.width)).numpy()
        scores = np.zeros((len(found), *labels.shape), np.float32)
        for plane, region in zip(scores, found, strict=True):
            plane[region["mask"].cpu().numpy()] = region["score"]
        return Segmentation(labels, scores, [words[region["category_id"]] for region in found], pixels)

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options: Any) -> torch.Tensor:
        """The tensor-level core: (B, 3, H, W) normalised, (K, D) -> (B, K, H, W) scores at input size."""
        return self.method.predict(images, text_embeddings, **options)


def load(
    name: str = DEFAULT_METHOD,
    checkpoint: str | Path | None = None,
    clip: str = DEFAULT_CLIP[0],
    pretrained: str | None = DEFAULT_CLIP[1],
    device: str | torch.device | None = None,
) -> Segmenter:
    """A method by name on a CLIP of your choice.

    name: one of `ovs_lite.methods.METHODS`.
    checkpoint: the method's own trained weights, default the shipped ones.
    clip, pretrained: see `ovs_lite.clip.load_clip`; of the shipped ones ViT-Lite-8 sees 16 x 16 patches of a drawing
        where ConvNeXt-Lite sees 4 x 4 cells; ("ViT-B-16", "openai") for photos. The default stands for the shipped
        CLIP that the method's weights belong to. groupvit brings its own encoder, takes none, and reads it from
        `checkpoint`, a folder or a name on the Hugging Face hub.
    device: default the GPU where there is one.
    Raises ValueError for unknown names, for a checkpoint of a method that trains nothing and for a CLIP that the method
    would not use and for a device that is not there, FileNotFoundError for missing weights.
    """
    device = _device(device)
    chosen = None if (clip, pretrained) == DEFAULT_CLIP else (clip, pretrained)
    return Segmenter(load_method(name, chosen, checkpoint, device))


def _device(given: Any) -> torch.device:
    """The device, once something was put there; None is the GPU where there is one."""
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if given is None else given
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, TypeError, AssertionError) as error:  # a torch without CUDA asserts
        raise ValueError(f"got device {given!r}, expected one of this machine's such as 'cpu' ({error})") from None


def _threshold(background: Any, method: Method, options: dict[str, Any]) -> float | None:
    """The score below which a pixel is background; None for no background."""
    automatic = isinstance(background, str) and background == "auto"
    own = method.background_below(**options)
    if automatic and own is None:
        raise ValueError(f"got background='auto', but {method.name} names no threshold; give a number, or None")
    found = own if automatic else background
    if found is not None and (isinstance(found, bool) or not isinstance(found, Real) or not isfinite(found)):
        raise ValueError(f"got background={background!r}, expected None, 'auto' or a number to compare scores with")
    return None if found is None else float(found)
