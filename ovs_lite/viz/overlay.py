"""A segmentation laid over its image: colour, contour, the name on the region, and a legend sorted by area.

H, W pixels; labels are (H, W) integers, an index into `names`, -1 = unlabelled and left transparent.
"""

from collections.abc import Sequence
from numbers import Real

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ovs_lite.viz.lettering import drawable, font, shorten, width
from ovs_lite.viz.palette import colours

PLACING_SIDE = 400  # names are placed on a map of about this many pixels a side
SMALLEST_NAMED = 0.002  # of the image's pixels; smaller regions are named in the legend only
LEGEND_WIDTH = 160
INK, PAPER = (25, 25, 25), (255, 255, 255)


def overlay(
    image: Image.Image, labels: np.ndarray, names: Sequence[str], alpha: float = 0.5, legend: bool = True
) -> Image.Image:
    """The image with its segmentation, PIL RGB. Without legend the size is the image's; the legend goes underneath.

    alpha: share of the class colour inside regions, 0..1; contours are opaque, in the colour of their region. Each name
    stands at the point deepest inside its region; letters that no font has become numbers, see `drawable`. Raises
    ValueError where labels do not fit.
    """
    labels = _checked(image, labels, names)
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ValueError(f"got alpha={alpha!r}, expected 0..1")
    painted, rows = paint(image, labels, alpha), areas(labels, names)
    texts = drawable([name for _, name, _ in rows])
    rows = [(index, text, share) for (index, _, share), text in zip(rows, texts, strict=True)]
    _write_names(painted, labels, rows)
    return _with_legend(painted, rows) if legend else painted


def paint(image: Image.Image, labels: np.ndarray, alpha: float = 0.5) -> Image.Image:
    """Class colours and contours only, no words: PIL RGB of the image's size. labels: (H, W), -1 transparent."""
    table = colours(max(int(labels.max(initial=-1)) + 1, 1))
    solid = Image.fromarray(table[np.maximum(labels, 0)])
    base = image.convert("RGB")
    base.paste(Image.blend(base, solid, alpha), mask=Image.fromarray(labels >= 0))
    thickness = max(1, round(min(labels.shape) / 300))
    base.paste(solid, mask=Image.fromarray(contours(labels, thickness)))
    return base


def contours(labels: np.ndarray, thickness: int = 1) -> np.ndarray:
    """(H, W) bool: labelled pixels within `thickness` of a pixel with another label, above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, thickness + 1):
        down, right = labels[step:] != labels[:-step], labels[:, step:] != labels[:, :-step]
        edge[step:] |= down
        edge[:-step] |= down
        edge[:, step:] |= right
        edge[:, :-step] |= right
    return edge & (labels >= 0)


def areas(labels: np.ndarray, names: Sequence[str]) -> list[tuple[int, str, float]]:
    """(index, name, share of the pixels) of every label present, largest first; unlabelled pixels last, as index -1."""
    counts = np.bincount(labels.ravel() + 1, minlength=len(names) + 1)
    present = sorted(np.flatnonzero(counts[1:]).tolist(), key=lambda index: (-counts[index + 1], index))
    rows = [(index, names[index], float(counts[index + 1] / labels.size)) for index in present]
    return rows + ([(-1, "unlabelled", float(counts[0] / labels.size))] if counts[0] else [])


def rounded_share(share: float) -> str:
    """0.314 -> "31 %"; a little is never written as nothing."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def alt_text(labels: np.ndarray, names: Sequence[str]) -> str:
    """The segmentation in words, largest first, for readers who do not see it: "grass 52 %, cat 31 %"."""
    return in_words(areas(np.asarray(labels), names))


def in_words(rows: Sequence[tuple[int, str, float]]) -> str:
    """The rows of `areas` as `alt_text` says them."""
    return ", ".join(f"{name} {rounded_share(share)}" for _, name, share in rows)


def _checked(image: Image.Image, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (image.height, image.width) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"got labels {labels.shape} of {labels.dtype} for an image of {image.width} x {image.height} pixels, "
            f"expected integers of shape {(image.height, image.width)}"
        )
    if labels.min() < -1 or labels.max() >= len(names):
        raise ValueError(f"got labels {labels.min()}..{labels.max()}, expected -1..{len(names) - 1} as of the names")
    return labels.astype(np.int64, copy=False)


def _letter_size(image: Image.Image) -> int:
    return int(np.clip(min(image.size) / 22, 10, 60))


def name_places(
    labels: np.ndarray, rows: Sequence[tuple[int, str, float]], side: int = PLACING_SIDE
) -> list[tuple[int, int, int]]:
    """(index, x, y) in pixels for the rows of `areas` whose region is large enough to be named, in their order.

    The place lies deep inside the region. labels: (H, W). side: pixels along the map on which it is looked for.
    """
    step = -(-max(labels.shape) // side)
    coarse = labels[step // 2 :: step, step // 2 :: step]
    large = [index for index, _, share in rows if index >= 0 and share >= SMALLEST_NAMED]
    found = [(index, _deepest_point(coarse == index)) for index in large]
    return [(index, at[1] * step + step // 2, at[0] * step + step // 2) for index, at in found if at]


def _write_names(image: Image.Image, labels: np.ndarray, rows: list[tuple[int, str, float]]) -> None:
    """Smallest region first, so that where names meet the larger region's name, with more room, lies on top."""
    draw, size = ImageDraw.Draw(image), _letter_size(image)
    names = {index: name for index, name, _ in rows}
    for index, x, y in reversed(name_places(labels, rows)):
        text = shorten(names[index], size, image.width)
        half = width(text, size) / 2
        x = np.clip(x, half, max(half, image.width - half))
        y = np.clip(y, size / 2, max(size / 2, image.height - size / 2))
        draw.text((x, y), text, PAPER, font(size, text), anchor="mm", stroke_width=max(1, size // 10), stroke_fill=INK)


def _deepest_point(mask: np.ndarray) -> tuple[int, int] | None:
    """Row and column far from the outside of mask and image (90 % of the farthest), near the middle of such pixels.

    None for an empty mask.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    if not depth.any():
        return None
    deep = np.argwhere(depth >= 0.9 * depth.max())
    row, column = deep[np.square(deep - deep.mean(0)).sum(1).argmin()]
    return int(row), int(column)


def _with_legend(image: Image.Image, rows: list[tuple[int, str, float]]) -> Image.Image:
    """Swatch, name and area of each row, flowing from left to right under the image."""
    size = _letter_size(image)
    gap, line = size // 2, round(1.5 * size)
    total = max(image.width, LEGEND_WIDTH)
    places, x, y = [], gap, gap
    for index, name, share in rows:
        area = f" {rounded_share(share)}"
        text = shorten(name, size, total - 4 * gap - size - width(area, size)) + area
        needed = size + gap + width(text, size)
        if x > gap and x + needed + gap > total:
            x, y = gap, y + line
        places.append((x, y, index, text))
        x += needed + 2 * gap
    sheet = Image.new("RGB", (total, image.height + y + line + gap), PAPER)
    sheet.paste(image, ((total - image.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, index, text in places:
        top = image.height + y
        fill = tuple(colours(index + 1)[index].tolist()) if index >= 0 else PAPER
        draw.rectangle((x, top, x + size, top + size), fill=fill, outline=INK)
        draw.text((x + size + gap, top + size / 2), text, INK, font(size, text), anchor="lm")
    return sheet
