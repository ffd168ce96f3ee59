"""Images with semantic label maps as records: VOC, PASCAL-Context, ADE20K, COCO-Stuff, Cityscapes, and their like.

What a number in a map means is said by the vocabulary (see `ovs_lite.data.readers.label_maps.class_map`), so that a
data set is a file of class names and a pair of folders:

    iter_label_maps("VOC2012/JPEGImages", "VOC2012/SegmentationClass", load_vocabulary("voc20"), subset=True)
    iter_label_maps("leftImg8bit/val", "gtFine/val", load_vocabulary("cityscapes"),
                    endings=("_leftImg8bit", "_gtFine_labelIds"))

A label map knows classes, not instances: each class that is present becomes one segment, things too (is_thing says what
the class is).
"""

import io
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovs_lite.data.images import ImageFile, read_image, read_image_file, upright
from ovs_lite.data.readers.label_maps import VOID, class_map
from ovs_lite.data.readers.pixel_rules import STORED, PixelRule
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary

JPEG_QUALITY = 95  # of images that are shrunk


def iter_label_maps(
    images_dir: str | Path,
    maps_dir: str | Path,
    vocabulary: Vocabulary,
    report: ReaderReport | None = None,
    subset: bool = False,
    numbers: str | None = None,
    endings: tuple[str, str] = ("", ""),
    only: Container[str] | None = None,
    pixels: PixelRule = STORED,
    short_side: int | None = None,
    part: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """Yield one record per image with its label map of the same stem, in the order of the names.

    images_dir, maps_dir: flat, or with the same folders below, which become part of the image_id.
    An image without a usable label map, or a label map without an image, is skipped and listed in `report`: call
    report.check() afterwards. subset: files without a partner are no fault, only counted.
    numbers: what the maps hold, see `class_map`; default what `pixels` says, the rule by which a map's file is read.
    endings: of the images' and the maps' stems, left out of the image_id; files without it are not looked at.
    only: the image_ids to take, such as a split's list; default all.
    short_side: pixels; larger images are shrunk to it (bilinear) and their maps with them (nearest), as the protocol of
        ADE20K's 847 classes has it.
    part: of the images, in their order (`ReaderReport.listed` says how many there are).
    Raises FileNotFoundError for a missing folder.
    """
    report = ReaderReport() if report is None else report
    images = _files(images_dir, pixels.image_suffixes, report, endings[0])
    maps = _files(maps_dir, pixels.map_suffixes, report, endings[1])
    if only is not None:
        images, maps = ({stem: path for stem, path in files.items() if stem in only} for files in (images, maps))
    if subset:
        report.absent += len(set(images) ^ set(maps))
        images = {stem: path for stem, path in images.items() if stem in maps}
        maps = {stem: path for stem, path in maps.items() if stem in images}
    stems = sorted(set(images) | set(maps))
    report.listed = stems
    for stem in stems[part]:
        try:
            if stem not in images or stem not in maps:
                folder = maps_dir if stem in images else images_dir
                raise ValueError(f"{images.get(stem) or maps.get(stem)} has no partner in {folder}")
            image, values = _pair(images[stem], maps[stem], pixels, short_side)
            record = _record(stem, image, values, maps[stem], vocabulary, numbers or pixels.numbers)
        except (ValueError, OSError) as error:
            report.skip(stem, error)
            continue
        report.read += 1
        report.annotations_read += 1
        report.count_segments(record["segments_info"])
        yield record


def _files(folder: str | Path, suffixes: tuple[str, ...], report: ReaderReport, ending: str) -> dict[str, Path]:
    """Path below the folder without ending and suffix -> path; of two files with one such name the first counts."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    files: dict[str, Path] = {}
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    for path in sorted(path for path in found if path.stem.endswith(ending)):
        stem = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        if stem in files:
            report.skip(path.name, f"{files[stem].name} has the same stem and counts")
        else:
            files[stem] = path
    if not files:
        wanted = " or ".join(ending + suffix for suffix in suffixes)
        report.skip(folder, f"no {wanted} file in it or below")
    return files


def _pair(image_path: Path, map_path: Path, pixels: PixelRule, short_side: int | None) -> tuple[ImageFile, np.ndarray]:
    """(upright image, (H, W) numbers of its map), shrunk where that is asked for. Raises ValueError, OSError."""
    image, values = read_image_file(image_path), pixels.read(map_path)
    if values.shape == image.stored_size:
        values = upright(values, image.orientation)
    if values.shape != (image.height, image.width):
        sizes = f"{values.shape[1]} x {values.shape[0]} pixels, {image_path} has {image.width} x {image.height}"
        raise ValueError(f"{map_path} has {sizes}")
    shortest = min(values.shape)
    if short_side is None or shortest <= short_side:
        return image, values
    size = tuple(round(side * short_side / shortest) for side in (image.width, image.height))
    stream = io.BytesIO()
    read_image(image.encoded).resize(size, Image.Resampling.BILINEAR).save(stream, "JPEG", quality=JPEG_QUALITY)
    small = Image.fromarray(np.ascontiguousarray(values, np.int32)).resize(size, Image.Resampling.NEAREST)
    return read_image_file(stream.getvalue()), np.asarray(small)


def _record(
    name: str, image: ImageFile, values: np.ndarray, map_path: Path, vocabulary: Vocabulary, numbers: str
) -> dict[str, Any]:
    try:
        classes = class_map(values, vocabulary, numbers)
    except ValueError as error:
        raise ValueError(f"{map_path}: {error}") from None
    infos = [
        describe_segment(classes == index, index + 1, index, vocabulary.is_thing[index], False)
        for index in np.unique(classes).tolist()
        if index != VOID
    ]
    record = {"image_id": name, "image": image.encoded, "captions": []}
    return record | {"segments": np.ascontiguousarray(classes + 1), "segments_info": infos}
