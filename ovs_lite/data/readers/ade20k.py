"""ADE20K-150 label maps (Zhou et al., CVPR 2017; MIT scene parsing benchmark) as records.

A label map is a PNG whose pixels are 0 for void and 1..150 for the classes of "ade150". It knows classes, not
instances: each class that is present becomes one segment, things too (is_thing says what the class is).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovs_lite.data.images import check_pixels, read_image_file, upright
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_MODES = ("L", "P", "I;16", "I")  # of a palette image the indices count, not the colours


def iter_ade20k(
    images_dir: str | Path,
    annotations_dir: str | Path,
    report: ReaderReport | None = None,
    vocabulary: Vocabulary | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one record per image with its label map of the same stem, in the order of the names.

    An image without a usable label map, or a label map without an image, is skipped and listed in `report`: call
    report.check() afterwards. vocabulary: default "ade150". Raises FileNotFoundError for a missing folder.
    """
    report = ReaderReport() if report is None else report
    vocabulary = vocabulary or load_vocabulary("ade150")
    images = _files(images_dir, IMAGE_SUFFIXES, report)
    labels = _files(annotations_dir, (".png",), report)
    for stem in sorted(set(images) | set(labels)):
        try:
            record = _record(stem, images, labels, Path(images_dir), Path(annotations_dir), vocabulary)
        except (ValueError, OSError) as error:
            report.skip(stem, error)
            continue
        report.read += 1
        report.annotations_read += 1
        report.count_segments(record["segments_info"])
        yield record


def read_label_map(path: str | Path) -> np.ndarray:
    """(H, W) int32 class numbers as stored, unturned. Raises ValueError or FileNotFoundError naming the file."""
    try:
        with Image.open(path) as image:
            check_pixels(image.width, image.height, str(path))
            if image.mode not in LABEL_MODES:
                raise ValueError(f"got mode {image.mode!r}, expected one channel of class numbers")
            return np.array(image, dtype=np.int32)
    except FileNotFoundError:
        raise FileNotFoundError(f"no label map at {path}") from None
    except Exception as error:  # damaged PNGs raise SyntaxError, struct.error, zlib.error, OSError, ...
        raise ValueError(f"{path} cannot be read as a label map: {error}") from None


def _files(folder: str | Path, suffixes: tuple[str, ...], report: ReaderReport) -> dict[str, Path]:
    """Stem -> path; of two files with one stem the first by name counts."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    files: dict[str, Path] = {}
    for path in sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in suffixes):
        if path.stem in files:
            report.skip(path.name, f"{files[path.stem].name} has the same stem and counts")
        else:
            files[path.stem] = path
    return files


def _record(
    stem: str,
    images: dict[str, Path],
    labels: dict[str, Path],
    images_dir: Path,
    annotations_dir: Path,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    if stem not in images or stem not in labels:
        folder = annotations_dir if stem in images else images_dir
        raise ValueError(f"{images.get(stem) or labels.get(stem)} has no partner in {folder}")
    picture = read_image_file(images[stem])
    values = read_label_map(labels[stem])
    if values.shape == picture.stored_size:
        values = upright(values, picture.orientation)
    if values.shape != (picture.height, picture.width):
        raise ValueError(
            f"{labels[stem]} has {values.shape[1]} x {values.shape[0]} pixels, {images[stem]} has "
            f"{picture.width} x {picture.height}"
        )
    categories = vocabulary.by_source_id()
    present = [value for value in np.unique(values).tolist() if value != 0]
    unknown = [value for value in present if value not in categories]
    if unknown:
        raise ValueError(f"{labels[stem]} holds {unknown}, expected 0 (void) and 1..{max(categories)}")
    infos = [
        describe_segment(values == value, value, categories[value], vocabulary.is_thing[categories[value]], False)
        for value in present
    ]
    segments = np.ascontiguousarray(values)
    return {"image_id": stem, "image": picture.encoded, "segments": segments, "segments_info": infos, "captions": []}
