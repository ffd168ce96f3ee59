"""What every method offers: scores of every class at every pixel, in two steps of which a new word repeats the second.

B images, K classes, D embedding, H W pixels, h w patches.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.config import ClipConfig
from ovs_lite.regions.score_maps import at_stride


@dataclass(frozen=True)
class PatchFeatures:
    """What most methods keep of B images.

    size: (H, W) of the images.
    patches: (B, D, h, w), un-normalised, in CLIP's joint space.
    """

    size: tuple[int, int]
    patches: torch.Tensor


class Method(nn.Module):
    """A segmenter on top of a CLIP. Subclasses set `name` and define `encode` and `scores`, decorated by `encodes` and
    `scores_from`.

    trains: whether there are trained weights next to CLIP's; `trained_part` then gives them.
    templates: prompt set of `ovs_lite.data.templates`.
    background: score below which a pixel is background, where the authors give one.
    load_released: (path, clip) -> method, reads the layout that the authors released, where that can be read.
    default_clip: (name, pretrained) of the CLIP that is taken where none is given.
    weights_of: the method whose weights it uses, where that is another.
    masks_of: of a mask-based method, the recipe that trains its mask proposals alone.
    tied_to: towers of the CLIP that the trained weights belong to, of "text" and "image".
    load_own: (checkpoint or None, device) -> method, of a method that brings an encoder of its own and takes no CLIP.
    """

    name = ""
    trains = False
    templates = "vild14"
    background: float | None = None
    default_clip: tuple[str, str | None] = (ClipConfig.name, ClipConfig.pretrained)
    weights_of = ""
    masks_of = ""
    tied_to: tuple[str, ...] = ("text", "image")
    load_released: Callable[[Path, Clip], "Method"] | None = None
    load_own: Callable[[str | Path | None, str | torch.device], "Method"] | None = None

    def __init__(self, clip: Clip):
        super().__init__()
        self.clip = clip

    @classmethod
    def stored(cls, clip: Clip, about: dict[str, str]) -> "Method":
        """A method that a file of weights with these notes (`about` and what `save_method` adds) will fill."""
        return cls(clip)

    def about(self) -> dict[str, str]:
        """What `stored` has to know to build the method again."""
        return {}

    def variant(self) -> str:
        """What decides its scores besides its name, options, weights and CLIP; part of the protocol card."""
        return ""

    def background_below(self, **options) -> float | None:
        """The score below which a pixel is background, with these options of `scores`; None where none is known."""
        return self.background

    def encode(self, images: torch.Tensor) -> Any:
        """(B, 3, H, W) normalised -> what `scores` needs of them, whatever its texts and options. No gradient."""
        raise TypeError(f"{type(self).__name__} must define encode(images)")

    def scores(self, features: Any, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """What `encode` returned, (K, D) L2-normalised -> (B, K, H, W) scores at input size. No gradient."""
        raise TypeError(f"{type(self).__name__} must define scores(features, text_embeddings)")

    @torch.no_grad()
    def predict(self, images: torch.Tensor, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """(B, 3, H, W) normalised, (K, D) L2-normalised -> (B, K, H, W) scores at input size. options: of `scores`.

        Raises ValueError for inputs of another shape, type or device, for options that the method has not, and for
        scores that are NaN, of which an argmax would make class 0.
        """
        scores = self.scores(self.encode(images), text_embeddings, **options)
        if scores.isnan().any():
            raise ValueError(f"got scores of {self.name} that are NaN, expected numbers; look for NaN in the inputs")
        return scores

    def scores_each_class_alone(self, **options) -> bool:
        """Whether a class scores the same whatever other classes are asked for, with these options of `scores`.

        Then a large vocabulary may be scored in parts. False, which is always right, unless a method knows better.
        """
        return False

    def panoptic(
        self, features: Any, text_embeddings: torch.Tensor, is_thing: Sequence[bool], **options
    ) -> list[tuple[torch.Tensor, list[dict[str, Any]]]]:
        """Segments of each of B images: ids (H, W) int64 with 0 = void, and what each is, as records' `segments_info`.

        features, text_embeddings: as `scores`. is_thing: K flags; stuff of one class is one segment. options: the
        method's own. Raises ValueError for a method that finds no single things.
        """
        raise ValueError(f"got the method {self.name}, expected one whose masks are of single things")

    def regions(self, features: Any, text_embeddings: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Proposals of each of B images, and what they may be: masks (N, H, W) soft in [0, 1] at the image's size, and
        (N, K) in [0, 1], how probable each class is for each; rows need not sum to 1.

        features, text_embeddings: as `scores`. Raises ValueError for a pixel-based method.
        """
        raise ValueError(f"got the method {self.name}, expected a mask-based one, which names masks")

    @property
    def prompter(self) -> Any:
        """What answers points and boxes: `look(image)`, (H, W, 3) uint8 RGB -> what is seen, and
        `masks_at(seen, points=None, boxes=None)` -> masks (P, N, H, W) and their predicted IoU (P, N).

        Raises ValueError for a method that cannot be prompted.
        """
        raise ValueError(f"got the method {self.name}, expected one that takes points and boxes")

    @property
    def proposer(self) -> Any:
        """What finds its masks, a `MaskProposer`, whose `propose` is a mask source (`ovs_lite.regions.sources`).

        Raises ValueError for a pixel-based method.
        """
        raise ValueError(f"got the method {self.name}, expected a mask-based one, which proposes masks")

    def trained_part(self) -> nn.Module | None:
        """What is trained and stored next to CLIP; None where nothing is."""
        return None


def encodes(function: Callable) -> Callable:
    """Decorates a method's `encode`: without gradient, for images of the right kind; else raises ValueError."""

    @functools.wraps(function)
    @torch.no_grad()
    def encode(self: Method, images: torch.Tensor) -> Any:
        _check_tensor("images", images, "(B, 3, H, W) normalised", self.clip)
        if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
            raise ValueError(f"got images {tuple(images.shape)}, expected (B, 3, H, W) with at least one pixel")
        return function(self, images)

    return encode


def scores_from(kind: type) -> Callable[[Callable], Callable]:
    """Decorates a method's `scores`: without gradient, for features of that class, as `encode` returns them, for texts
    of the right kind and for the method's own options; else raises ValueError."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        @torch.no_grad()
        def scores(self: Method, features: Any, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
            if type(features) is not kind:
                given = f"got features of type {type(features).__name__}"
                raise ValueError(f"{given}, expected {kind.__name__}, which {self.name}'s encode returns")
            _check_tensor("text_embeddings", text_embeddings, "(K, D) L2-normalised", self.clip)
            dim, shape = self.clip.embed_dim, tuple(text_embeddings.shape)
            if len(shape) != 2 or shape[1] != dim or shape[0] == 0:
                classes = f"(K, {dim}) as {self.clip.name} embeds texts, with at least one class"
                raise ValueError(f"got text_embeddings {shape}, expected {classes}")
            found = getattr(features, "patches", text_embeddings).shape[1]
            if found != dim:
                raise ValueError(f"got features with {found} channels, expected {dim}, as {self.clip.name} has")
            check_options(self, options)
            return function(self, features, text_embeddings, **options)

        return scores

    return decorate


def check_options(method: Method, options: dict[str, Any]) -> None:
    """Raises ValueError for an option that the method's `scores` has not, or of another type than its default."""
    known = options_of(method)
    for name, value in options.items():
        if known is not None and name not in known:
            raise ValueError(f"got option {name!r}, expected one of {', '.join(known) or 'none'} for {method.name}")
        if known is not None and not fits(value, known[name]):
            raise ValueError(f"got {name}={value!r}, expected a value like {known[name].default!r} for {method.name}")


def options_of(method: Method | type[Method]) -> dict[str, inspect.Parameter] | None:
    """The options of a method's `scores` by name; None for one that takes any, for a method inside it."""
    parameters = inspect.signature(method.scores).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return {one.name: one for one in parameters if one.default is not one.empty}


def fits(value: Any, option: inspect.Parameter) -> bool:
    """Whether a value is of an option's type: its default's, any number for a float, None where it may be None."""
    like = option.default
    if like is None or type(value) is type(like) or (value is None and "None" in str(option.annotation)):
        return True
    return isinstance(like, float) and isinstance(value, Real) and not isinstance(value, bool)


def _check_tensor(name: str, value: Any, expected: str, clip: Clip) -> None:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"got {name} of type {type(value).__name__}, expected a tensor {expected}")
    mean = clip.mean
    known = value.dtype == mean.dtype or value.is_floating_point() and torch.is_autocast_enabled(value.device.type)
    if not known or value.device != mean.device:
        given = f"got {name} of {value.dtype} on {value.device}"
        raise ValueError(f"{given}, expected {mean.dtype} on {mean.device}, {expected}")


def upsample_to(clip: Clip, scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Scores of patches, (B, K, h, w), upsampled to images of `size` = (H, W), bilinear -> (B, K, H, W).

    The map covers the image padded to whole patches; see `at_stride`.
    """
    return at_stride(scores, size, clip.stride)
