"""Label maps: PNGs whose pixels are numbers, read as they are stored.

Image libraries stretch grey of 1, 2 and 4 bits to 0..255, which suits images and ruins numbers (class 5 of 4 bits
becomes 85), so the depth in the file's header is looked at and the stretching undone.

Legend: H, W pixels as stored, before any EXIF orientation.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ovs_lite.data.images import check_pixels

LABEL_MODES = ("1", "L", "P", "I;16", "I")  # of a palette image the indices count, not the colours
HEADER_BYTES, DEPTH_AT, COLOUR_AT = 26, 24, 25  # PNG specification, sections 5.2 and 11.2.1


def read_label_map(path: str | Path) -> np.ndarray:
    """(H, W) int32 class numbers of a PNG of 1, 2, 4, 8 or 16 bits, grey or palette, exactly as stored.

    Raises ValueError or FileNotFoundError naming the file.
    """
    return _read(path, LABEL_MODES, "one channel of class numbers, as in ADEChallengeData2016")[0]


def read_panoptic_map(path: str | Path) -> np.ndarray:
    """(H, W) int32 segment ids of a COCO panoptic PNG, red + 256 green + 65536 blue. Raises as `read_label_map`."""
    values, depth = _read(path, ("RGB",), "segment ids as 8-bit RGB colours")
    if depth != 8:
        raise ValueError(f"{path} has {depth} bits a channel, expected segment ids as 8-bit RGB colours")
    return values @ np.array([1, 256, 65536], np.int32)


def _read(path: str | Path, modes: tuple[str, ...], expected: str) -> tuple[np.ndarray, int]:
    """(the pixels as stored, int32; bits a channel)."""
    try:
        with open(path, "rb") as stream:
            header = stream.read(HEADER_BYTES)
        with Image.open(path) as image:
            check_pixels(image.width, image.height, str(path))
            if image.format != "PNG":
                raise ValueError(f"got {image.format}, expected PNG: other formats change the numbers")
            if image.mode not in modes:
                raise ValueError(f"got mode {image.mode!r}, expected {expected}")
            values, depth, grey = np.array(image, dtype=np.int32), header[DEPTH_AT], header[COLOUR_AT] == 0
    except FileNotFoundError:
        raise FileNotFoundError(f"no label map at {path}") from None
    except Exception as error:  # damaged PNGs raise SyntaxError, struct.error, zlib.error, OSError, ...
        raise ValueError(f"{path} cannot be read as a label map: {error}") from None
    return (values // (255 // (2**depth - 1)) if grey and depth in (2, 4) else values), depth
