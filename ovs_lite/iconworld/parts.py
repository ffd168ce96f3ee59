"""The parts of a drawing that a person would point at: connected areas of like colour, such as wheel, window, ear."""

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from ovs_lite.iconworld.atlas import sprites

COLOURS = 6  # a drawing is reduced to so many before its areas are told apart
SMALLEST = 0.03  # share of the drawing that an area must cover to be a part; smaller ones join the nearest part


@lru_cache(maxsize=4096)
def part_map(drawing: int) -> np.ndarray:
    """(S, S) uint8 parts of a drawing, numbered from 1, the largest first; 0 where nothing is drawn."""
    picture = sprites("cpu")[0][drawing].permute(1, 2, 0).numpy()
    shown = picture[..., 3] > 127
    if not shown.any():
        return np.zeros(shown.shape, np.uint8)
    colours = np.asarray(Image.fromarray(picture[shown][None, :, :3]).quantize(COLOURS, dither=Image.Dither.NONE))[0]
    reduced = np.full(shown.shape, -1)
    reduced[shown] = colours
    pieces = [piece for colour in np.unique(colours) for piece in _connected(reduced == colour)]
    pieces = sorted((piece for piece in pieces if piece.sum() >= SMALLEST * shown.sum()), key=lambda p: -p.sum())
    parts = np.zeros(shown.shape, np.uint8)
    for number, piece in enumerate(pieces or [shown], 1):
        parts[piece] = number
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    return np.where(shown, parts[tuple(nearest)], 0).astype(np.uint8)


def _connected(area: np.ndarray) -> list[np.ndarray]:
    labels, number = ndimage.label(area)
    return [labels == piece for piece in range(1, number + 1)]
