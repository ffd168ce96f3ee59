"""Where two label maps of one image differ, and which of them is right. H W pixels."""

import numpy as np
from PIL import Image

from ovs_lite.viz.overlay import overlay

KINDS = ("{first} right", "{second} right", "both wrong")
AGREED = -1
SIDE = 360  # pixels; smaller images are enlarged, so that words fit


def differences(first: np.ndarray, second: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    """(H, W) labels of two methods and of the ground truth -> (H, W) int64: AGREED where both say the same, else 0, 1
    or 2 of KINDS; without a target 0. Pixels whose target is negative (ignored) agree. Raises ValueError for other
    sizes.
    """
    shapes = [given.shape for given in (first, second, target) if given is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"got label maps {shapes}, expected all of one size")
    if target is None:
        return np.where(first == second, AGREED, 0)
    kinds = np.select([first == target, second == target], [0, 1], 2)
    return np.where((first == second) | (target < 0), AGREED, kinds)


def difference_map(
    image: Image.Image, first: np.ndarray, second: np.ndarray, names: tuple[str, str], target: np.ndarray | None = None
) -> Image.Image:
    """The image, enlarged where it is small, with what `differences` finds in colour; the legend gives shares of it."""
    if target is None:
        legend = (f"{names[0]} and {names[1]} differ",)
    else:
        legend = tuple(kind.format(first=names[0], second=names[1]) for kind in KINDS)
    factor, found = max(1, -(-SIDE // image.width)), differences(first, second, target)
    return overlay(
        image.resize((factor * image.width, factor * image.height)), found.repeat(factor, 0).repeat(factor, 1), legend
    )
