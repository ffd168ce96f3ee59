"""ADE20K-150 label maps (Zhou et al., CVPR 2017; MIT scene parsing benchmark) as records.

A label map is a PNG whose pixels are 0 for void and 1..150 for the classes of "ade150". It knows classes, not
instances: each class that is present becomes one segment, things too (is_thing says what the class is).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovs_lite.data.images import read_image_file, upright
from ovs_lite.data.readers.label_maps import read_label_map
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def iter_ade20k(
    images_dir: str | Path,
    annotations_dir: str | Path,
    report: ReaderReport | None = None,
    vocabulary: Vocabulary | None = None,
    subset: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one record per image with its label map of the same stem, in the order of the names.

    images_dir, annotations_dir: flat, or with the folders of ADEChallengeData2016 (training/, validation/), which
        become part of the image_id: "training/ADE_train_00000001".
    An image without a usable label map, or a label map without an image, is skipped and listed in `report`: call
    report.check() afterwards. vocabulary: default "ade150". subset: files without a partner are no fault, only counted.
    Raises FileNotFoundError for a missing folder.
    """
    report = ReaderReport() if report is None else report
    vocabulary = vocabulary or load_vocabulary("ade150")
    images = _files(images_dir, IMAGE_SUFFIXES, report)
    labels = _files(annotations_dir, (".png",), report)
    if subset:
        report.absent += len(set(images) ^ set(labels))
        images = {stem: path for stem, path in images.items() if stem in labels}
        labels = {stem: path for stem, path in labels.items() if stem in images}
    for stem in sorted(set(images) | set(labels)):
        try:
            if stem not in images or stem not in labels:
                folder = annotations_dir if stem in images else images_dir
                raise ValueError(f"{images.get(stem) or labels.get(stem)} has no partner in {folder}")
            record = _record(stem, images[stem], labels[stem], vocabulary)
        except (ValueError, OSError) as error:
            report.skip(stem, error)
            continue
        report.read += 1
        report.annotations_read += 1
        report.count_segments(record["segments_info"])
        yield record


def _files(folder: str | Path, suffixes: tuple[str, ...], report: ReaderReport) -> dict[str, Path]:
    """Path below the folder without its suffix -> path; of two files with one such name the first counts."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    files: dict[str, Path] = {}
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    for path in sorted(found):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            report.skip(path.name, f"{files[stem].name} has the same stem and counts")
        else:
            files[stem] = path
    if not files:
        report.skip(folder, f"no {' or '.join(suffixes)} file in it or below")
    return files


def _record(name: str, image_path: Path, labels_path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    image, values = read_image_file(image_path), read_label_map(labels_path)
    if values.shape == image.stored_size:
        values = upright(values, image.orientation)
    if values.shape != (image.height, image.width):
        sizes = f"{values.shape[1]} x {values.shape[0]} pixels, {image_path} has {image.width} x {image.height}"
        raise ValueError(f"{labels_path} has {sizes}")
    categories = vocabulary.by_source_id()
    present = [value for value in np.unique(values).tolist() if value != 0]
    if unknown := [value for value in present if value not in categories]:
        raise ValueError(f"{labels_path} holds {unknown}, expected 0 (void) and 1..{max(categories)}")
    infos = [
        describe_segment(values == value, value, categories[value], vocabulary.is_thing[categories[value]], False)
        for value in present
    ]
    record = {"image_id": name, "image": image.encoded, "captions": []}
    return record | {"segments": np.ascontiguousarray(values), "segments_info": infos}
