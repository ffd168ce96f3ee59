"""Images out: checked before the work whose result they show, written whole or not at all."""

from pathlib import Path

from PIL import Image

from ovs_lite.files import check_writable, replacing

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_QUALITY = 92


def check_image_path(path: str | Path) -> None:
    """Raise ValueError for a suffix of no image that is written here, FileNotFoundError for a folder that is missing.

    OSError says why else nothing can be written at `path`.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"got {str(path)!r}, expected a file name that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent}; create it first")
    check_writable(path)


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write PNG or JPEG, by the path's suffix; a crash leaves no half-written file. Errors as `check_image_path`."""
    path = Path(path)
    check_image_path(path)
    with replacing(path) as temporary:
        image.save(temporary, FORMATS[path.suffix.lower()], quality=JPEG_QUALITY)
