"""Contact sheets: many small images on one page, to look at a data set before trusting it."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from PIL import Image, ImageDraw

from ovs_lite.data.images import read_image
from ovs_lite.data.rle import decode_rle
from ovs_lite.viz.lettering import drawable, font, wrap
from ovs_lite.viz.overlay import INK, PAPER, paint

LETTERS = 11
CAPTION_LINES = 3
MARGIN = 6
PAIRS = 18  # best and worst pairs of their sheet, each


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    segments: Sequence[np.ndarray | None] | None = None,
    columns: int = 6,
    side: int = 160,
) -> Image.Image:
    """Images in rows of `columns`, each fitted into side x side pixels, as one PIL RGB image.

    segments: per image an (H, W) integer segment map as the record has it (0 = void, left transparent) or None;
    drawn under the image. captions: one text each, cut after three lines. Raises ValueError for lists of unequal
    length, for no images at all, and for a segment map of another size than its image.
    """
    _check(images, captions, segments, columns)
    captions = None if captions is None else drawable(captions)
    columns = min(columns, len(images))
    tall = side * (1 if segments is None else 2) + MARGIN // 2 * (segments is not None)
    line = round(1.3 * LETTERS)
    cell_width, cell_height = side + MARGIN, tall + (0 if captions is None else CAPTION_LINES * line) + MARGIN
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, image in enumerate(images):
        left = MARGIN + number % columns * cell_width
        top = MARGIN + number // columns * cell_height
        _place(sheet, image.convert("RGB"), left, top, side)
        if segments is not None and segments[number] is not None:
            painted = paint(image, np.asarray(segments[number]).astype(np.int64) - 1, alpha=0.6)
            _place(sheet, painted, left, top + side + MARGIN // 2, side)
        for row, text in enumerate(wrap(captions[number], LETTERS, side, CAPTION_LINES) if captions else []):
            draw.text((left, top + tall + row * line), text, INK, font(LETTERS, text))
    return sheet


def mask_sheet(
    image: Image.Image, masks: np.ndarray, titles: Sequence[str] | None = None, columns: int = 16, side: int = 56
) -> Image.Image:
    """One small image per mask, in which what the mask leaves out is dark: PIL RGB.

    masks: (N, H, W) bool or in [0, 1], of the image's size. Raises ValueError for another size or no mask.
    """
    masks = np.asarray(masks, np.float32)
    if masks.ndim != 3 or len(masks) == 0 or masks.shape[1:] != (image.height, image.width):
        raise ValueError(f"got masks {masks.shape}, expected (N, {image.height}, {image.width}) with N >= 1")
    pixels = np.asarray(image.convert("RGB"), np.float32)
    shown = [Image.fromarray((pixels * (0.15 + 0.85 * mask[..., None])).astype(np.uint8)) for mask in masks]
    return contact_sheet(shown, titles, columns=columns, side=side)


def pair_sheet(pairs: Dataset, shown: int = PAIRS) -> Image.Image:
    """The best and then the worst mined pairs by their cosine, `shown` of each, what is not the region darkened."""
    scores = np.array([pair["score"] for pair in pairs["pair"]])
    order = np.argsort(-scores, kind="stable").tolist()
    chosen = order if len(order) <= 2 * shown else order[:shown] + order[-shown:]
    images, captions = [], []
    for row in chosen:
        record = pairs[row]
        image, mask = read_image(record["image"]), decode_rle(record["masks"][0])
        pixels = np.array(image) * (0.25 + 0.75 * mask[..., None])
        images.append(Image.fromarray(pixels.astype(np.uint8)))
        captions.append(f"{record['captions'][0]} {scores[row]:.2f}")
    return contact_sheet(images, captions, side=96)


def _place(sheet: Image.Image, image: Image.Image, left: int, top: int, side: int) -> None:
    """Fit into the square, centred; enlarged pixels stay sharp, shrunk ones are averaged."""
    scale = side / max(image.size)
    size = tuple(max(1, round(scale * length)) for length in image.size)
    fitted = image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
    sheet.paste(fitted, (left + (side - size[0]) // 2, top + (side - size[1]) // 2))


def _check(images: Sequence, captions: Sequence | None, segments: Sequence | None, columns: int) -> None:
    if not images or columns < 1:
        raise ValueError(f"got {len(images)} images in {columns} columns, expected at least one of each")
    for name, items in (("captions", captions), ("segments", segments)):
        if items is not None and len(items) != len(images):
            raise ValueError(f"got {len(items)} {name} for {len(images)} images, expected one each")
    for number, (image, owner) in enumerate(zip(images, segments or [], strict=False)):
        if owner is not None and np.shape(owner) != (image.height, image.width):
            raise ValueError(
                f"got segments of shape {np.shape(owner)} for image {number} of {image.width} x {image.height} "
                f"pixels, expected {(image.height, image.width)}"
            )
