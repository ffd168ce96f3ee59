"""Prompts' tokens read the image and become masks; no prompt knows of another.

Uni-OVSeg (Wang et al., 2024), section 3, Eq. 3, and appendix A, after Mask2Former (Cheng et al., CVPR 2022), section
3.2.1. B images, P prompts, K masks of each, T = 2 + K tokens of a prompt, C channels, S pixels of a level, h w a
quarter of the image's sides.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import MLP

from ovs_lite.methods.uniovseg.prompts import CORNERS
from ovs_lite.models.pixel_decoder import PixelFeatures


@dataclass(frozen=True)
class PromptedMasks:
    """One decoder stage's answer. mask_logits: (B, P, K, h, w). quality_logits: (B, P, K), whose sigmoid is the
    predicted IoU; the released model takes it twice."""

    mask_logits: torch.Tensor
    quality_logits: torch.Tensor


class Attention(nn.Module):
    """Multi-head attention with a mask that all heads share."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(channels, channels) for _ in range(4))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, Q, C), (N, S, C), (N, S, C), and (N, Q, S) bool, where a query may look -> (N, Q, C)."""
        split = ((self.query, queries), (self.key, keys), (self.value, values))
        q, k, v = (layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, given in split)
        found = F.scaled_dot_product_attention(q, k, v, None if allowed is None else allowed[:, None])
        return self.output(found.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Masked attention to a level, self-attention within each prompt's tokens, feed-forward; post-norm, no dropout."""

    def __init__(self, channels: int, heads: int, feedforward: int):
        super().__init__()
        self.cross_attention, self.self_attention = Attention(channels, heads), Attention(channels, heads)
        self.feedforward = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(
        self,
        tokens: torch.Tensor,
        places: torch.Tensor,
        level: torch.Tensor,
        keys: torch.Tensor,
        allowed: torch.Tensor,
    ) -> torch.Tensor:
        """(B, P, T, C) tokens and their places, (B, S, C) values and keys, (B, P, S) bool -> (B, P, T, C)."""
        shape = tokens.shape
        looking = allowed[:, :, None].expand(-1, -1, shape[2], -1).flatten(1, 2)  # all tokens of a prompt alike
        seen = self.cross_attention((tokens + places).flatten(1, 2), keys, level, looking)
        tokens = self.norms[0](tokens + seen.view(shape))
        tokens = self.norms[1](tokens + within(self.self_attention, tokens, places))
        return self.norms[2](tokens + self.feedforward(tokens))


class MaskDecoder(nn.Module):
    """`PromptEncoder`'s tokens and `PixelFeatures` -> masks and their quality after every layer.

    Tokens start as their own places, as released; one self-attention mixes each prompt's before the first masks. Levels
    take turns, coarsest first. A prompt looks where any of its K masks of the stage before is at least 1/2, or
    everywhere if that is nowhere (released; the paper says only "masked cross-attention").
    Departure: all mask tokens share one MLP for masks and one for quality, as in the paper; the released model has one
    of each per token. layers: the paper's 6, the released model's 9. feedforward: 2048 there at 256 channels.
    """

    def __init__(self, channels: int, heads: int, layers: int, levels: int = 3):
        super().__init__()
        self.level_embedding = nn.Parameter(torch.randn(levels, channels))
        self.first_attention, self.first_norm = Attention(channels, heads), nn.LayerNorm(channels)
        self.blocks = nn.ModuleList([DecoderLayer(channels, heads, 8 * channels) for _ in range(layers)])
        self.norm = nn.LayerNorm(channels)
        self.to_mask = MLP(channels, [channels, channels, channels])
        self.to_quality = MLP(channels, [channels, channels, 1])

    def forward(self, tokens: torch.Tensor, features: PixelFeatures) -> list[PromptedMasks]:
        """(B, P, T, C) -> an answer before the first layer and after each; the last one counts, all are trained."""
        levels = [
            level.flatten(2).transpose(1, 2) + embedding
            for level, embedding in zip(features.levels, self.level_embedding, strict=True)
        ]
        keys = [level + places for level, places in zip(levels, features.places, strict=True)]
        places = tokens
        tokens = self.first_norm(tokens + within(self.first_attention, tokens, places))
        answers = [self._answer(tokens, features.pixels)]
        for number, block in enumerate(self.blocks):
            turn = number % len(levels)
            allowed = where_to_look(answers[-1].mask_logits, features.levels[turn].shape[-2:])
            tokens = block(tokens, places, levels[turn], keys[turn], allowed)
            answers.append(self._answer(tokens, features.pixels))
        return answers

    def _answer(self, tokens: torch.Tensor, pixels: torch.Tensor) -> PromptedMasks:
        masks = self.norm(tokens[:, :, CORNERS:])  # (B, P, K, C)
        logits = self.to_mask(masks).flatten(1, 2) @ pixels.flatten(2)
        return PromptedMasks(logits.view(*masks.shape[:3], *pixels.shape[-2:]), self.to_quality(masks)[..., 0])


def within(attention: Attention, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Self-attention among the tokens of each prompt alone: (B, P, T, C), (B, P, T, C) -> (B, P, T, C)."""
    own, asking = tokens.flatten(0, 1), (tokens + places).flatten(0, 1)
    return attention(asking, asking, own).view(tokens.shape)


@torch.no_grad()
def where_to_look(mask_logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, P, K, h, w) logits -> (B, P, S) bool at a level's size: the union of a prompt's masks, all if it is empty."""
    small = F.interpolate(mask_logits.detach().flatten(0, 1), size, mode="bilinear", align_corners=False)
    union = (small >= 0).any(1).flatten(1).unflatten(0, mask_logits.shape[:2])
    return union | ~union.any(-1, keepdim=True)
