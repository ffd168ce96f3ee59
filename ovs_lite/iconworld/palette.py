"""Colour words: the pigments that paint glyphs, and what a drawn sprite's colour is called.

A caption says "a red car" only if one named colour covers most of the car as it is drawn; otherwise it names none.
Made things may be turned in hue, so that a red and a blue one can stand side by side. n pictures, H W pixels.
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
NO_COLOUR = -1
MIN_DISTANCE = 38.0  # CIE76 units; about 2.3 is just noticeable, 38 stays clear under shading and jitter
MIN_CHOICES = 3
MOST = 0.55  # share of a sprite that one named colour must cover to name the sprite
TURNS = 8  # hue turns of a made thing, in equal steps over the whole circle
# hue in degrees at which each next word begins
_HUES = (
    (0, "red"), (16, "orange"), (42, "yellow"), (68, "green"), (168, "blue"), (258, "purple"), (298, "pink"),
    (338, "red"),
)  # fmt: skip
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


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
    """Which colours may paint glyphs in each scene: (B, R) stuff ids and (B, R) bool -> (B, 10) bool.

    A colour is allowed when it is at least MIN_DISTANCE from every valid stuff of the scene. Where fewer than
    MIN_CHOICES qualify, the MIN_CHOICES farthest are allowed instead.
    """
    distance = contrast_table()[stuff_ids]  # (B, R, 10)
    nearest = distance.masked_fill(~stuff_valid[..., None], torch.inf).amin(1)
    threshold = nearest.topk(MIN_CHOICES, dim=1).values[:, -1:].clamp(max=MIN_DISTANCE)
    return nearest >= threshold


@lru_cache(maxsize=1)
def hue_turns() -> torch.Tensor:
    """(TURNS, 3, 3) matrices that turn the hue of RGB columns, the first one the identity; brightness is kept (YIQ)."""
    angle = torch.arange(TURNS) * (2 * torch.pi / TURNS)
    turn = torch.zeros(TURNS, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1], turn[:, 1, 2] = angle.sin(), -angle.sin()
    return torch.linalg.inv(_YIQ) @ turn @ _YIQ


def turned(picture: torch.Tensor) -> torch.Tensor:
    """(4, H, W) RGBA in [0, 1] -> (TURNS, 4, H, W), one for each hue turn."""
    colours = torch.einsum("tij,jhw->tihw", hue_turns(), picture[:3]).clamp(0, 1)
    return torch.cat([colours, picture[None, 3:].expand(TURNS, -1, -1, -1)], 1)


def _hue(rgb: torch.Tensor, high: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Hue in degrees, 0..360, of (n, 3, H, W); arbitrary for greys."""
    red, green, blue = rgb.unbind(1)
    spread = spread.clamp(min=1e-6)
    of_cool = torch.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4)
    return 60 * torch.where(high == red, (green - blue) / spread % 6, of_cool)


def colour_words(rgb: torch.Tensor) -> torch.Tensor:
    """(n, 3, H, W) RGB in [0, 1] -> (n, H, W) int64 index into COLOUR_NAMES, NO_COLOUR for grey, skin and tan."""
    high, low = rgb.amax(1), rgb.amin(1)
    hue, saturation = _hue(rgb, high, high - low), (high - low) / high.clamp(min=1e-6)
    ids = {name: torch.tensor(i, device=rgb.device) for i, name in enumerate(COLOUR_NAMES)}
    none = torch.tensor(NO_COLOUR, device=rgb.device)
    word = torch.full_like(hue, NO_COLOUR, dtype=torch.int64)
    for begin, name in _HUES:
        word = torch.where(hue >= begin, ids[name], word)
    word = torch.where((hue >= 16) & (hue < 48) & (saturation < 0.68), none, word)  # skin, tan, beige
    word = torch.where((hue >= 168) & (hue < 258) & (saturation < 0.42), none, word)  # steel
    word = torch.where(
        (hue < 50) & (high < torch.where(hue < 16, 0.55, 0.72)) & (saturation > 0.38), ids["brown"], word
    )
    pale_red = ((hue < 16) | (hue >= 330)) & (saturation < 0.62)
    word = torch.where(pale_red, torch.where(high > 0.85, ids["pink"], none), word)
    word = torch.where((hue < 16) & (high < 0.55) & (saturation > 0.38), ids["brown"], word)
    grey = (saturation < 0.16) | (high - low < 0.06)
    word = torch.where(grey, torch.where(low > 0.82, ids["white"], none), word)
    return torch.where((high < 0.30) & ((saturation < 0.5) | (high < 0.18)), ids["black"], word)


def measured_colours(sprites: torch.Tensor) -> torch.Tensor:
    """(n, 4, H, W) RGBA in [0, 1] -> (n,) the word whose colour covers at least MOST of what is drawn, or NO_COLOUR."""
    words = colour_words(sprites[:, :3]).flatten(1)
    shown = (sprites[:, 3] > 0.5).flatten(1)
    shares = torch.stack([((words == i) & shown).sum(1) for i in range(len(COLOUR_NAMES))], 1)
    best = (shares / shown.sum(1, keepdim=True).clamp(min=1)).max(1)
    return torch.where(best.values >= MOST, best.indices, NO_COLOUR)
