"""A method that encodes an image once, however often it is scored: with other words, other options, other weights.

For tables whose rows differ in what comes after `encode`, such as a curve over the weight of an ensemble.
"""

from typing import Any

import torch

from ovs_lite.methods.base import Method, check_options
from ovs_lite.tensors import tensors_digest


class WithKeptFeatures(Method):
    """The same scores as the method's own. What `encode` gave for a batch of images is kept, on their device, for as
    long as this object lives; the method's weights must not change meanwhile."""

    def __init__(self, method: Method):
        super().__init__(method.clip)
        self.method, self.name = method, method.name
        self.templates, self.background = method.templates, method.background
        self.kept: dict[str, Any] = {}

    def background_below(self, **options) -> float | None:
        """The method's."""
        return self.method.background_below(**options)

    def variant(self) -> str:
        """The method's."""
        return self.method.variant()

    def encode(self, images: torch.Tensor) -> Any:
        """As the method's; of images that were encoded before, what was kept."""
        key = tensors_digest("images", [images])
        if key not in self.kept:
            self.kept[key] = self.method.encode(images)
        return self.kept[key]

    def scores(self, features: Any, text_embeddings: torch.Tensor, **options) -> torch.Tensor:
        """As the method's."""
        check_options(self.method, options)
        return self.method.scores(features, text_embeddings, **options)
