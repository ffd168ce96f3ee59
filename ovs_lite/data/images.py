"""Reading images: whatever a user or a data set hands in becomes upright 8-bit RGB, or an error that names the file.

Legend: H, W pixels of the upright image. Alpha is composited on white. 16-bit values are scaled by 1/257. Of an
animation the first frame counts. EXIF orientation is applied, and masks must follow: see `upright`.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 50_000_000
EXIF_ORIENTATION = 0x0112
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")


@dataclass(frozen=True)
class ImageFile:
    """A checked image of a data set: encoded upright RGB, its size, and the orientation its masks must be given.

    stored_size: (H, W) of the pixels as the file stores them, before `orientation` (EXIF, 1..8) is applied.
    """

    encoded: bytes
    height: int
    width: int
    orientation: int

    @property
    def stored_size(self) -> tuple[int, int]:
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_image(source: Any) -> Image.Image:
    """Path, encoded bytes, PIL image or array -> PIL RGB image, upright.

    source: arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8 in 0..255 or uint16 in 0..65535 (grey
    only). Its size is checked before anything is decoded. Raises FileNotFoundError, or ValueError naming the source.
    """
    return _read(source)[0]


def read_image_file(source: Any) -> ImageFile:
    """Check and load any input of `read_image` for a data set; the same rules hold whichever way an image comes.

    Encoded bytes, a file's or given, stay as they are where every decoder gives the same upright RGB image (a plain
    JPEG or PNG); anything else becomes PNG. Raises FileNotFoundError, or ValueError naming the source.
    """
    rgb, orientation, plain = _read(source)
    encoded = _png(rgb) if not plain else source if isinstance(source, bytes) else Path(source).read_bytes()
    return ImageFile(encoded, rgb.height, rgb.width, max(1, orientation))


def encode_image(source: Any) -> bytes:
    """Any input of `read_image` -> the encoded bytes of `read_image_file`."""
    return read_image_file(source).encoded


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an (H, W, ...) array of stored pixels as EXIF orientation 1..8 turns its image."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)  # 5 mirrors at the diagonal; the others mirror that once or twice more
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def check_pixels(width: int, height: int, name: str) -> None:
    """Raise ValueError for an image without pixels or with more than `MAX_PIXELS`."""
    if width * height == 0 or width * height > MAX_PIXELS:
        raise ValueError(f"got {name} with {width} x {height} pixels, expected 1 to {MAX_PIXELS / 1e6:g} million")


def _read(source: Any) -> tuple[Image.Image, int, bool]:
    """(upright RGB image, orientation as of `_decode`, whether the source's encoded bytes say just that)."""
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array"), 1, False
    if isinstance(source, Image.Image):
        return *_decode(source, getattr(source, "filename", "") or "the PIL image"), False
    if not isinstance(source, bytes | str | Path):
        given = f"got an image of type {type(source).__name__}"
        raise ValueError(f"{given}, expected a path, bytes, PIL image or uint8 array")
    name = "the encoded image" if isinstance(source, bytes) else str(source)
    with _open(io.BytesIO(source) if isinstance(source, bytes) else source, name) as image:
        rgb, orientation = _decode(image, name)
        bare = image.format == "PNG" and not {"transparency", "exif"} & set(image.info)
        plain = image.mode == "RGB" and (image.format == "JPEG" or bare)
        return rgb, orientation, plain and orientation == 1


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=3)
    return stream.getvalue()


def _open(source: Any, name: str) -> Image.Image:
    if isinstance(source, str | Path) and os.path.exists(source) and not os.path.isfile(source):  # a pipe would hang
        raise ValueError(f"{name} cannot be read as an image: it is no file but a folder, a pipe or a device")
    try:
        return Image.open(source)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file at {name}") from None
    except Exception as error:  # damaged headers raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
        raise ValueError(f"{name} cannot be read as an image: {type(error).__name__}: {error}") from None


def _decode(image: Image.Image, name: str) -> tuple[Image.Image, int]:
    """(upright RGB image, the EXIF orientation that was applied; 0 where the EXIF block is damaged)."""
    check_pixels(image.width, image.height, name)
    try:
        image.load()
    except Exception as error:  # as above; a truncated file opens and fails only here
        raise ValueError(f"{name} is damaged or truncated: {type(error).__name__}: {error}") from None
    orientation = _orientation(image)
    rgb = _to_rgb(image, name)
    return (rgb if orientation <= 1 else Image.fromarray(upright(np.asarray(rgb), orientation).copy())), orientation


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF next to good pixels is no reason to lose the image
        return 0
    return value if value in range(1, 9) else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"got {name} with values {values.min()}..{values.max()}, expected 8 or 16 bits a channel")
        grey = np.where(values == image.info.get("transparency", -1), 255, (values + 128) // 257)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode in ("RGB", "L", "P", "1", "CMYK", "YCbCr", "HSV"):
        return image.convert("RGB")
    raise ValueError(f"got {name} in mode {image.mode!r}, expected 8 or 16 bits a channel (grey, RGB, palette or CMYK)")


def _from_array(array: np.ndarray) -> Image.Image:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (grey and array.dtype in (np.uint8, np.uint16) or colour and array.dtype == np.uint8):
        raise ValueError(
            f"got an array of shape {array.shape} and type {array.dtype}, expected (H, W, 3) uint8 RGB in 0..255 "
            "(also (H, W), (H, W, 1), (H, W, 4); tensors in [0, 1] need * 255 and channels last)"
        )
    check_pixels(array.shape[1], array.shape[0], "an array")
    return Image.fromarray(np.ascontiguousarray(array.squeeze(2) if grey and array.ndim == 3 else array))
