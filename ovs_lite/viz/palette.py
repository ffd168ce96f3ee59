"""Colours of classes: fixed per index, so the same class has the same colour in every image and every run.

The first seven are those of Okabe and Ito (2008), which people with any kind of colour blindness tell apart; their
black is left out because it reads badly under transparency, and orange and yellow are kept far apart. Later colours
step round the hue circle by the golden ratio, in three levels of lightness. Colours alone never carry the meaning:
overlays write names on the regions.
"""

import colorsys
from functools import lru_cache

import numpy as np

OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (213, 94, 0),
    (240, 228, 66),
)
GOLDEN_RATIO = 0.618033988749895
FIRST_HUE = 0.05
LEVELS = ((0.75, 0.80), (0.45, 0.95), (0.90, 0.55))  # (saturation, value)


def colour(index: int) -> tuple[int, int, int]:
    """RGB in 0..255 of class `index` >= 0."""
    if index < 0:
        raise ValueError(f"got colour index {index}, expected 0 or more; unlabelled pixels stay transparent")
    if index < len(OKABE_ITO):
        return OKABE_ITO[index]
    step = index - len(OKABE_ITO)
    saturation, value = LEVELS[step % len(LEVELS)]
    red, green, blue = colorsys.hsv_to_rgb((FIRST_HUE + step * GOLDEN_RATIO) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@lru_cache(maxsize=8)
def colours(count: int) -> np.ndarray:
    """The first `count` colours, (count, 3) uint8 RGB, read-only."""
    table = np.array([colour(index) for index in range(count)], np.uint8).reshape(count, 3)
    table.flags.writeable = False
    return table
