"""The promptable segmenter: a frozen backbone, a pixel decoder, prompts and a mask decoder, behind three calls.

Uni-OVSeg (Wang et al., 2024), section 3 and appendix A. B images, P prompts, K masks of each prompt, H W pixels of the
image as it is seen, h w a quarter of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ovs_lite.methods.proposer import MaskProposer, start_backbone
from ovs_lite.methods.uniovseg.config import PromptConfig
from ovs_lite.methods.uniovseg.mask_decoder import MaskDecoder, PromptedMasks
from ovs_lite.methods.uniovseg.prompts import PromptEncoder, small_boxes
from ovs_lite.models.backbone import STRIDES, Backbone
from ovs_lite.models.pixel_decoder import PixelDecoder, PixelFeatures
from ovs_lite.models.positions import PositionEncoding, cell_centres
from ovs_lite.regions.ranking import inner_nms

CHUNK = 100  # prompts that are decoded at once, as released


@dataclass(frozen=True)
class SeenImage:
    """What `PromptSegmenter.see` keeps of B images, `look` of one. size: their (H, W) in pixels. shown: those at which
    they were seen."""

    features: PixelFeatures
    size: tuple[int, int]
    shown: tuple[int, int]


def certainty(mask_logits: torch.Tensor) -> torch.Tensor:
    """(N, h, w) logits -> (N,): the mean probability of the pixels where it exceeds 1/2; 0 without any."""
    inside = mask_logits > 0
    return (mask_logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


class PromptNetwork(nn.Module):
    """Image -> features -> masks of prompts. config: the sizes. backbone: its maps at strides 4 to 32 are read."""

    def __init__(self, config: PromptConfig, backbone: Backbone):
        super().__init__()
        channels, heads = config.channels, config.heads
        self.backbone = backbone
        positions = PositionEncoding(channels, config.positions)
        sizes = (config.pixel_layers, heads, config.sampled, 4 * channels)
        self.pixel_decoder = PixelDecoder(backbone.channels, channels, positions, *sizes)
        self.prompts = PromptEncoder(channels, config.granularities)
        self.decoder = MaskDecoder(channels, heads, config.layers)

    def look(self, images: torch.Tensor) -> PixelFeatures:
        """(B, 3, H, W) normalised -> what all prompts share."""
        return self.pixel_decoder(self.backbone(images))

    def forward(self, features: PixelFeatures, boxes: torch.Tensor, kind: str) -> list[PromptedMasks]:
        """(B, P, 4) XYXY in [0, 1], "point" or "box" -> an answer per decoder stage, the final one last."""
        tokens = self.prompts(boxes, kind, features.pixels, self.pixel_decoder.positions)
        return self.decoder(tokens, features)


class PromptSegmenter(MaskProposer):
    """Masks of prompts, or of a grid of points as proposals. See `MaskProposer`; the score is the predicted IoU.

    config: see `PromptConfig`. fresh: see `start_backbone`.
    Images are seen with their long side at the configuration's `image_size`, whatever they have, and both sides rounded
    to whole cells of the coarsest map, so that nothing is padded and places in [0, 1] are the image's. Departure: the
    released model keeps the shape and pads; here it changes by half a cell, 16 pixels of `image_size`, at the most.
    """

    recipe = "uniovseg-masks"

    def __init__(self, config: PromptConfig, fresh: bool = True):
        backbone = start_backbone(config, fresh)
        super().__init__(config, backbone, PromptNetwork(config, backbone))

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) normalised -> mask logits (B, N, h, w) of all points of the grid, and (B, N) predicted IoU."""
        features, points = self.network.look(images), self._grid().expand(len(images), -1, -1)
        logits, quality = self._prompted(features, small_boxes(points, self.config.point_side), "point", CHUNK)
        return logits.flatten(1, 2), quality.flatten(1, 2)

    @torch.no_grad()
    def look(self, image: np.ndarray) -> SeenImage:
        """(H, W, 3) uint8 RGB -> what `masks_at` takes for any number of prompts."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"got an image {image.shape} of {image.dtype}, expected (H, W, 3) uint8 RGB")
        return self.see(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.mean.device) / 255)

    @torch.no_grad()
    def see(self, images: torch.Tensor) -> SeenImage:
        """(B, 3, H, W) RGB in [0, 1] -> what all prompts of each share, as `look`."""
        size = tuple(images.shape[-2:])
        factor = self.config.image_size / max(size)
        shown = tuple(max(1, round(side * factor / STRIDES[-1])) * STRIDES[-1] for side in size)
        if shown != size:
            images = F.interpolate(images, shown, mode="bilinear", align_corners=False, antialias=True)
        return SeenImage(self.network.look(self.normalise(images)), size, shown)

    @torch.no_grad()
    def masks_at(
        self,
        image: np.ndarray | SeenImage,
        points: np.ndarray | torch.Tensor | None = None,
        boxes: np.ndarray | torch.Tensor | None = None,
        chunk: int = CHUNK,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks of prompts: (P, K, H, W) soft in [0, 1] at the image's size, and their predicted IoU (P, K).

        image: (H, W, 3) uint8 RGB, or `look` of it, so that its features are computed once.
        points: (P, 2) XY in pixels, a pixel's centre at + 0.5; K masks of each, one for each granularity.
        boxes: (P, 4) XYXY in pixels, right and bottom edges exclusive; K = 1. Give one of the two.
        chunk: prompts that are decoded at once: bounds the memory, changes nothing else.
        Raises ValueError for prompts of another shape, both or neither.
        """
        seen = image if isinstance(image, SeenImage) else self.look(image)
        kind, given, width = ("point", points, 2) if boxes is None else ("box", boxes, 4)
        if (points is None) == (boxes is None):
            raise ValueError("got both or neither of points and boxes, expected one of them")
        prompts = torch.as_tensor(given, dtype=torch.float32, device=self.mean.device)
        if prompts.ndim != 2 or prompts.shape[1] != width or chunk < 1:
            shape = f"{tuple(prompts.shape)} for {kind} prompts, chunk={chunk}"
            raise ValueError(f"got {shape}, expected (P, {width}) and at least 1")
        prompts = prompts / prompts.new_tensor([*seen.size[::-1]] * (width // 2))
        prompts = small_boxes(prompts, self.config.point_side) if kind == "point" else prompts
        logits, quality = self._prompted(seen.features, prompts[None], kind, chunk)
        return soft_masks(logits[0], seen.size), quality[0]

    @torch.no_grad()
    def ranked(self, image: np.ndarray, objects_only: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """`grid_masks` of an image, (N, H, W) at the size at which it was seen, and their scores (N,), best first.

        Raises ValueError for objects_only, for want of a "no object".
        """
        if objects_only:
            raise ValueError(f'got objects_only, expected a model that knows "no object", which {self.recipe} does not')
        seen = self.look(image)
        ((logits, quality),) = self.grid_masks(seen)
        return soft_masks(logits[None], seen.shown)[0], quality

    @torch.no_grad()
    def grid_masks(self, seen: SeenImage, side: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each of B images the masks of all points of the grid, best first: logits (N, h, w) and scores (N,).

        side: points per side of the grid; default the configuration's.
        Duplicates and masks that a better one contains are left out, not only put last (`inner_nms`, at the size of the
        predictions, half of the released model's). Departure: masks of low quality stay, the last ones in the order,
        where the released model drops those with a predicted IoU below 0.62 (0.65 after a second sigmoid).
        Where no quality was learned (`quality_weight` 0) the score is how sure a mask is of its own pixels.
        """
        points = self._grid(side).expand(len(seen.features.pixels), -1, -1)
        boxes = small_boxes(points, self.config.point_side)
        found = (part.flatten(1, 2).float() for part in self._prompted(seen.features, boxes, "point", CHUNK))
        return [self._distinct(*one) for one in zip(*found, strict=True)]

    def _distinct(self, logits: torch.Tensor, quality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One image's masks (N, h, w) and their predicted IoU (N,) -> those that are kept, best first."""
        if not self.config.quality_weight:
            quality = certainty(logits)
        if quality.isnan().any():
            return logits[:1], quality.new_full((1,), torch.nan)  # so that it is noticed; no mask would be none
        order = quality.argsort(descending=True, stable=True)
        order = order[inner_nms(logits[order] > 0, self.config.duplicate, self.config.contained)]
        return logits[order], quality[order]

    def _grid(self, side: int | None = None) -> torch.Tensor:
        """(points, 2) XY in [0, 1]: the centres of the grid's cells."""
        side = side or self.config.grid
        return cell_centres(side, side).to(self.mean.device)

    def _prompted(
        self, features: PixelFeatures, boxes: torch.Tensor, kind: str, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last stage's masks (B, P, K, h, w) as logits and their predicted IoU (B, P, K) in [0, 1], in chunks."""
        parts = [self.network(features, part, kind)[-1] for part in boxes.split(chunk, 1)]
        pairs = zip(*((part.mask_logits, part.quality_logits) for part in parts), strict=True)
        logits, quality = (torch.cat(found, 1) for found in pairs)
        return logits, quality.float().sigmoid()


def soft_masks(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(P, K, h, w) logits -> (P, K, *size) in [0, 1]: bilinear before the sigmoid."""
    single = logits.float().flatten(0, 1)[:, None]  # so that there may be none
    found = F.interpolate(single, tuple(size), mode="bilinear", align_corners=False).sigmoid()
    return found.reshape(*logits.shape[:2], *size)
