"""Methods with a backbone of their own, which take from a CLIP the frozen text tower alone: OpenSeg, LSeg+."""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from ovs_lite.clip import Clip
from ovs_lite.config import flatten, override, to_dict
from ovs_lite.methods.base import Method


class OwnBackbone(Method):
    """A subclass sets `lite`, its preset of that name, and builds `network` from its configuration.

    clip: only its text tower is used. config: sizes of the network, and the sentences that words are put into; default
    the preset. A file of weights carries the configuration, and belongs to the text tower that it was trained with.
    """

    trains = True
    lite: Any
    network: nn.Module
    default_clip = ("ConvNeXt-Lite", "lite")  # whose image tower the lite backbone starts from
    tied_to = ("text",)

    def __init__(self, clip: Clip, config: Any = None):
        super().__init__(clip)
        clip.requires_grad_(False)
        self.config = config or self.lite
        self.templates = self.config.templates

    @classmethod
    def stored(cls, clip: Clip, about: Mapping[str, str]) -> "OwnBackbone":
        """Of the configuration that a file of weights was saved with."""
        return cls(clip, stored_config(cls.lite, about))

    def about(self) -> dict[str, str]:
        """The configuration and the size of embeddings, for a file of weights."""
        return {"config": json.dumps(to_dict(self.config)), "embed_dim": str(self.clip.embed_dim)}

    def trained_part(self) -> nn.Module:
        """All but the text tower."""
        return self.network


def stored_config(lite: Any, about: Mapping[str, str]) -> Any:
    """The settings that a file of weights was saved with, as changes of a preset. Raises KeyError or ValueError where
    it has none, or settings that are not the preset's."""
    return override(lite, dict(flatten(json.loads(about["config"]))))
