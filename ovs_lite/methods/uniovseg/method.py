"""Uni-OVSeg as a whole: a grid of points finds masks, an adapted CLIP names them, and both are fused.

Paper: see the folder. It gives no inference of classes, and none was released but two thresholds; so names are given as
by CLIP (softmax of cosines over its temperature), a semantic map is fused as MaskFormer's, with a power of the
predicted IoU as a mask's weight, and segments are cut as FC-CLIP cuts them (`regions.panoptic`). Chosen on the first 60
training images of `icon-coco`, whose labels no training saw: power 2 (mIoU 38.6, 40.4, 41.4, 40.9 % with 0, 1, 2, 4);
CLIP's own temperature (41.4 %; 41.9 with 0.01, 40.8 with 0.04); object threshold 0.1 (PQ 43.8 %; the same with 0, 43.6
with 0.2, 35.5 with 0.4, and 8.8 with the released 0.7, which is for other scores: of 68 classes CLIP is seldom sure).
Departure: where CLIP's backbone and the segmenter's are one, as in the paper, its features are computed once; here CLIP
looks at other sizes than the segmenter. Departure: of a class with synonyms FC-CLIP, whose evaluation the paper
follows, takes the highest logit before the softmax; here each synonym is a class of the softmax, and the highest
probability counts.
B images, N masks, K classes, D joint embedding, H W pixels, h w a quarter of the sides at which the segmenter sees.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ovs_lite.clip import Clip
from ovs_lite.config import to_dict
from ovs_lite.methods.base import Method, encodes, scores_from
from ovs_lite.methods.own_backbone import stored_config
from ovs_lite.methods.uniovseg.alignment_config import PRESETS, AlignmentConfig
from ovs_lite.methods.uniovseg.config import PRESETS as MASKS
from ovs_lite.methods.uniovseg.regions import aligned_regions
from ovs_lite.methods.uniovseg.segmenter import PromptSegmenter, soft_masks
from ovs_lite.regions.panoptic import UNI_OVSEG, panoptic_segments

NOWHERE = -100.0  # logits of a mask that only fills up: its sigmoid is 0
OBJECT_THRESHOLD = 0.1  # of segments' scores; see the module docstring


@dataclass(frozen=True)
class PromptedFeatures:
    """What Uni-OVSeg keeps of B images; N masks of each, best first, and where it has less than another, empty ones.

    size: (H, W) of the images.
    mask_logits: (B, N, h, w), of empty ones `NOWHERE`.
    quality: (B, N) predicted IoU in [0, 1], of empty ones 0.
    regions: (B, N, D), means over CLIP's input sizes of L2-normalised embeddings, of empty ones 0.
    """

    size: tuple[int, int]
    mask_logits: torch.Tensor
    quality: torch.Tensor
    regions: torch.Tensor


class UniOVSeg(Method):
    """See the module docstring.

    clip: its text tower embeds the classes, its image tower the regions. segmenter: finds masks; default a new one, for
    a file to fill. config: how regions are aligned, and at most how many masks an image has; default the preset.
    """

    name = "uniovseg"
    trains = True
    masks_of = "uniovseg-masks"
    default_clip = ("ConvNeXt-Lite", "lite")

    def __init__(self, clip: Clip, segmenter: PromptSegmenter | None = None, config: AlignmentConfig | None = None):
        super().__init__(clip)
        self.config = config or PRESETS["lite"]
        self.templates = self.config.templates
        self.aligned = aligned_regions(clip, self.config)
        segmenter = PromptSegmenter(MASKS["lite"], fresh=False) if segmenter is None else segmenter
        self.network = nn.ModuleDict({"segmenter": segmenter, "adapter": self.aligned.adapter})
        self.to(clip.device)

    @classmethod
    def stored(cls, clip: Clip, about: Mapping[str, str]) -> "UniOVSeg":
        """Of the configurations that a file of weights was saved with."""
        masks = stored_config(MASKS["lite"], {"config": about["segmenter"]})
        return cls(clip, PromptSegmenter(masks, fresh=False), stored_config(PRESETS["lite"], about))

    def about(self) -> dict[str, str]:
        """Both configurations, for a file of weights."""
        return {"config": json.dumps(to_dict(self.config)), "segmenter": json.dumps(to_dict(self.prompter.config))}

    def trained_part(self) -> nn.Module:
        """The segmenter, with its frozen backbone, and the adapter."""
        return self.network

    @property
    def prompter(self) -> PromptSegmenter:
        """Who finds the masks."""
        return self.network["segmenter"]

    @property
    def proposer(self) -> PromptSegmenter:
        """The same, asked by a grid of points."""
        return self.prompter

    @encodes
    def encode(self, images: torch.Tensor) -> PromptedFeatures:
        """(B, 3, H, W) normalised -> the grid's masks and the regions' embeddings, before any word is known."""
        seen = self.prompter.see(images * self.clip.std + self.clip.mean)
        found = [[part[: self.config.budget] for part in one] for one in self.prompter.grid_masks(seen)]
        logits = pad_sequence([some for some, _ in found], batch_first=True, padding_value=NOWHERE)
        quality = pad_sequence([some for _, some in found], batch_first=True)
        regions = self.aligned(images, soft_masks(logits, seen.size) > 0.5)
        return PromptedFeatures(seen.size, logits, quality, regions)

    @scores_from(PromptedFeatures)
    def scores(
        self,
        features: PromptedFeatures,
        text_embeddings: torch.Tensor,
        quality_power: float = 2.0,
        temperature: float | None = None,
    ) -> torch.Tensor:
        """-> (B, K, H, W): sum over masks of the probability of the class times the soft mask.

        quality_power: a mask counts by its predicted IoU to this power; 0: all alike. temperature: of the softmax over
        cosines; None: CLIP's. Raises ValueError for a negative power and for a temperature that is not positive.
        """
        if not quality_power >= 0:
            raise ValueError(f"got quality_power={quality_power}, expected 0 or more")
        probs = self._probabilities(features, text_embeddings, temperature)
        probs = probs * features.quality[..., None] ** quality_power
        return torch.einsum("bnk,bnhw->bkhw", probs, soft_masks(features.mask_logits, features.size))

    @torch.no_grad()
    def panoptic(
        self,
        features: PromptedFeatures,
        text_embeddings: torch.Tensor,
        is_thing: Sequence[bool],
        object_threshold: float = OBJECT_THRESHOLD,
        overlap_threshold: float = UNI_OVSEG["overlap_threshold"],
    ) -> list[tuple[torch.Tensor, list[dict[str, Any]]]]:
        """Segments of each of B images: ids (H, W) int64, 0 = void, and their `segments_info`.

        The score of a mask is its predicted IoU times the probability of its class. is_thing: K flags. Thresholds and
        errors: see `panoptic_segments`.
        """
        settings = {"object_threshold": object_threshold, "overlap_threshold": overlap_threshold}
        return [panoptic_segments(*one, is_thing, **settings) for one in self.regions(features, text_embeddings)]

    @torch.no_grad()
    def regions(
        self, features: PromptedFeatures, text_embeddings: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Masks, and the probability of each class times the mask's predicted IoU. See `Method.regions`."""
        probs = self._probabilities(features, text_embeddings) * features.quality[..., None]
        return list(zip(soft_masks(features.mask_logits, features.size), probs, strict=True))

    def _probabilities(
        self, features: PromptedFeatures, text: torch.Tensor, temperature: float | None = None
    ) -> torch.Tensor:
        """(B, N, K), rows sum to 1. Raises ValueError for a temperature of 0 or less."""
        cosines = features.regions @ text.to(features.regions.dtype).T
        if temperature is None:
            return self.clip.probabilities(cosines)
        if not temperature > 0:
            raise ValueError(f"got temperature={temperature}, expected a positive number, or None for CLIP's own")
        return (cosines / temperature).softmax(-1)
