"""Label maps: PNGs and TIFFs whose pixels are numbers, read as they are stored, and the classes that the numbers mean.

Image libraries stretch grey of 1, 2 and 4 bits to 0..255, which suits images and ruins numbers (class 5 of 4 bits
becomes 85), so the depth in the file's header is looked at and the stretching undone.

Legend: H, W pixels as stored, before any EXIF orientation.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ovs_lite.data.images import check_pixels
from ovs_lite.data.vocabulary import Vocabulary

LABEL_MODES = ("1", "L", "P", "I;16", "I;16B", "I")  # of a palette image the indices count, not the colours
HEADER_BYTES, DEPTH_AT, COLOUR_AT = 26, 24, 25  # PNG specification, sections 5.2 and 11.2.1
FORMATS = {".tif": "TIFF", ".tiff": "TIFF"}  # everything else is a PNG
LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")  # Pillow's names
TIFF_BITS, TIFF_MEANING, WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, tags BitsPerSample, PhotometricInterpretation
NUMBERS = ("source", "class")
VOID, SHOWN = -1, 5


def read_label_map(path: str | Path) -> np.ndarray:
    """(H, W) int32 class numbers of a PNG of 1, 2, 4, 8 or 16 bits, grey or palette, exactly as stored.

    Also of a .tif or .tiff file of 8 or 16 bits without loss, as maps of 847 and of 459 classes are prepared.
    Raises ValueError or FileNotFoundError naming the file.
    """
    return _read(path, LABEL_MODES, "one channel of class numbers, as in ADEChallengeData2016")[0]


def class_map(values: np.ndarray, vocabulary: Vocabulary, numbers: str = "source") -> np.ndarray:
    """Numbers of a label map, (H, W) integers -> (H, W) int32 class ids, VOID (-1) where a pixel has no label.

    numbers: "source": the data set's own, by the vocabulary's source ids, `void` and `others` (ADE20K: 1..150, 0 void);
        "class": class ids and the vocabulary's ignore_index, as detectron2's and mmsegmentation's scripts prepare maps
        (0..149, 255 void; 0..846, 65535 void).
    Raises ValueError with numbers that mean nothing; a map of the other numbering is not always noticed.
    """
    if numbers not in NUMBERS:
        raise ValueError(f"got numbers={numbers!r}, expected one of {', '.join(NUMBERS)}")
    meanings = dict.fromkeys(vocabulary.void if numbers == "source" else (vocabulary.ignore_index,), VOID)
    meanings |= vocabulary.by_source_id() if numbers == "source" else {i: i for i in range(len(vocabulary))}
    present, places = np.unique(values, return_inverse=True)
    strays = [value for value in present.tolist() if value not in meanings]
    if strays and (numbers == "class" or not vocabulary.others_are_background):
        raise ValueError(f"got numbers {strays[:SHOWN]}, expected {_told(meanings)} of {vocabulary.name!r}")
    found = np.array([meanings.get(value, vocabulary.background) for value in present.tolist()], np.int32)
    return found[places.reshape(values.shape)]


def _told(meanings: dict[int, int]) -> str:
    """What numbers there may be, in words."""
    void = ", ".join(str(value) for value, meaning in sorted(meanings.items()) if meaning == VOID)
    classes = [value for value, meaning in meanings.items() if meaning != VOID]
    known = f"{min(classes)}..{max(classes)}" if classes else "no number, for want of a source_id, of a class"
    return f"{void} (void) and {known}" if void else known


def read_panoptic_map(path: str | Path) -> np.ndarray:
    """(H, W) int32 segment ids of a COCO panoptic PNG, red + 256 green + 65536 blue. Raises as `read_label_map`."""
    return read_colours(path, "segment ids") @ np.array([1, 256, 65536], np.int32)


def read_colours(path: str | Path, what: str = "class numbers") -> np.ndarray:
    """(H, W, 3) int32 values 0..255 of a PNG of 8-bit RGB that stands for `what`. Raises as `read_label_map`."""
    values, depth = _read(path, ("RGB",), f"{what} as 8-bit RGB colours")
    if depth != 8:
        raise ValueError(f"{path} has {depth} bits a channel, expected {what} as 8-bit RGB colours")
    return values


def _read(path: str | Path, modes: tuple[str, ...], expected: str) -> tuple[np.ndarray, int]:
    """(the pixels as stored, int32; bits a channel)."""
    try:
        with open(path, "rb") as stream:
            header = stream.read(HEADER_BYTES)
        with Image.open(path) as image:
            check_pixels(image.width, image.height, str(path))
            wanted = FORMATS.get(Path(path).suffix.lower(), "PNG")
            if image.format != wanted:
                raise ValueError(f"got {image.format}, expected {wanted}: other formats change the numbers")
            if wanted == "TIFF":
                _check_tiff(image)
            if image.mode not in modes:
                raise ValueError(f"got mode {image.mode!r}, expected {expected}")
            values, depth, grey = np.array(image, dtype=np.int32), header[DEPTH_AT], header[COLOUR_AT] == 0
    except FileNotFoundError:
        raise FileNotFoundError(f"no label map at {path}") from None
    except Exception as error:  # damaged PNGs raise SyntaxError, struct.error, zlib.error, OSError, ...
        raise ValueError(f"{path} cannot be read as a label map: {error}") from None
    grey = grey and wanted == "PNG"
    return (values // (255 // (2**depth - 1)) if grey and depth in (2, 4) else values), depth


def _check_tiff(image: Image.Image) -> None:
    """Raise ValueError where Pillow's pixels would not be the numbers that were stored."""
    bits, compression = image.tag_v2.get(TIFF_BITS, (1,)), image.info.get("compression")
    inverted = image.tag_v2.get(TIFF_MEANING) == WHITE_IS_ZERO
    if compression not in LOSSLESS or not set(bits) <= {8, 16} or inverted:
        given = f"got a TIFF of {bits} bits, compressed by {compression}" + inverted * ", with inverted numbers"
        raise ValueError(f"{given}, expected 8 or 16 bits without loss ({', '.join(LOSSLESS)})")
