"""Colour words and the pigments behind them.

Ten colour words paint the things of IconWorld. A caption that says "a red cat" is only fair if the cat can be told
from what lies under it, so a scene may use a colour only when it stays apart (CIE76 distance) from its stuff.
"""

from functools import lru_cache

import torch
from skimage.color import rgb2lab

from ovs_lite.iconworld.textures import STUFF

PIGMENTS = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.98, 0.88, 0.12),
    "green": (0.08, 0.52, 0.18),
    "blue": (0.10, 0.22, 0.85),
    "purple": (0.50, 0.14, 0.68),
    "pink": (0.98, 0.52, 0.76),
    "brown": (0.40, 0.23, 0.10),
    "black": (0.06, 0.06, 0.07),
    "white": (0.97, 0.97, 0.97),
}
COLOUR_NAMES = tuple(PIGMENTS)
MIN_DISTANCE = 38.0  # CIE76 units; about 2.3 is just noticeable, 38 stays clear under shading and jitter
MIN_CHOICES = 3


def pigments() -> torch.Tensor:
    """The colours as (10, 3) RGB in [0, 1], in the order of COLOUR_NAMES."""
    return torch.tensor(list(PIGMENTS.values()))


@lru_cache(maxsize=1)
def contrast_table() -> torch.Tensor:
    """CIE76 distance between every stuff's base colour and every pigment: (S, 10)."""
    stuff_lab = torch.tensor(rgb2lab([stuff.colour for stuff in STUFF]), dtype=torch.float32)
    pigment_lab = torch.tensor(rgb2lab(list(PIGMENTS.values())), dtype=torch.float32)
    return torch.cdist(stuff_lab, pigment_lab)


def allowed_colours(stuff_ids: torch.Tensor, stuff_valid: torch.Tensor) -> torch.Tensor:
    """Which colours may be used in each scene: (B, R) stuff ids and (B, R) bool -> (B, 10) bool.

    A colour is allowed when it is at least MIN_DISTANCE from every valid stuff of the scene. Where fewer than
    MIN_CHOICES qualify, the MIN_CHOICES farthest are allowed instead.
    """
    distance = contrast_table()[stuff_ids]  # (B, R, 10)
    nearest = distance.masked_fill(~stuff_valid[..., None], torch.inf).amin(1)
    threshold = nearest.topk(MIN_CHOICES, dim=1).values[:, -1:].clamp(max=MIN_DISTANCE)
    return nearest >= threshold
