"""COCO panoptic (Kirillov et al., CVPR 2019, as COCO 2017 publishes it) as records: things and stuff, crowds kept.

Its JSON has one annotation per image, which names a PNG and lists the PNG's segments. A pixel's segment id is red +
256 green + 65536 blue, 0 is void. A record's ids have 16 bits, so segments are numbered 1, 2, ... in the list's order;
area and bbox are those of the map's pixels, never those of the JSON.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovs_lite.data.images import ImageFile, upright
from ovs_lite.data.readers.coco_json import (
    Categories,
    by_image,
    check_folder,
    coco_images,
    read_captions,
    read_categories,
    read_coco_json,
    read_crowd,
    unique_entries,
)
from ovs_lite.data.readers.label_maps import read_panoptic_map
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary


def iter_coco_panoptic(
    images_dir: str | Path,
    maps_dir: str | Path,
    panoptic_json: str | Path,
    captions_json: str | Path | None = None,
    report: ReaderReport | None = None,
    vocabulary: Vocabulary | None = None,
    subset: bool = False,
    part: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """Yield one record per image of the panoptic JSON, in the order of the image ids, with its captions where given.

    images_dir, maps_dir, panoptic_json: as COCO unpacks, train2017/, annotations/panoptic_train2017/ (PNGs) and
        annotations/panoptic_train2017.json.
    An image without a usable map is skipped, a segment of a category that the vocabulary lacks becomes void; both are
    listed in `report`: call report.check() afterwards. vocabulary: default "coco-panoptic". subset: images that are
    listed but not on disk are no fault, only counted. part: of the images, in their order (`ReaderReport.listed` says
    how many there are). Raises FileNotFoundError for a missing file or folder, ValueError for a JSON file of another
    layout or of other categories.
    """
    report = ReaderReport() if report is None else report
    check_folder(images_dir, "image")
    check_folder(maps_dir, "panoptic map")
    content, captions = read_coco_json(panoptic_json, "panoptic"), {"images": [], "annotations": []}
    captions = captions if captions_json is None else read_coco_json(captions_json, "captions")
    categories = read_categories(content, vocabulary or load_vocabulary("coco-panoptic"), panoptic_json)
    images = {entry["id"]: entry for entry in unique_entries(content["images"], "image id", report.skip)}
    listed = unique_entries(content["annotations"], "annotation", report.skip_annotation, "image_id")
    annotations = {annotation["image_id"]: annotation for annotation in listed}
    captioned = {entry["id"] for entry in unique_entries(captions["images"], "image id", report.skip)}
    texts = by_image(captions["annotations"], captioned.union(images), "caption", report)
    for entry, image, frame in coco_images(images_dir, images.values(), report, subset, part):
        try:
            ids = _ids(Path(maps_dir), annotations.get(entry["id"]), frame, image)
            segments, infos = _segments(ids, annotations[entry["id"]], categories, report)
        except (ValueError, OSError) as error:
            report.skip(entry["file_name"], error)
            continue
        report.count_segments(infos)
        record = {"image_id": str(entry["id"]), "image": image.encoded, "segments": segments, "segments_info": infos}
        report.read += 1
        yield record | {"captions": read_captions(texts.get(entry["id"], []), report)}


def _ids(folder: Path, annotation: dict | None, frame: tuple[int, int], image: ImageFile) -> np.ndarray:
    """(H, W) int32 ids of the upright image's map, all of which the annotation lists. Raises ValueError, OSError."""
    if annotation is None or not isinstance(annotation.get("segments_info"), list):
        raise ValueError("no annotation of the image with a list segments_info in the JSON")
    path = folder / plain_file_name(annotation.get("file_name"))
    ids = read_panoptic_map(path)
    if ids.shape != frame:
        sizes = f"{ids.shape[1]} x {ids.shape[0]} pixels, the JSON says {frame[1]} x {frame[0]}"
        raise ValueError(f"{path} has {sizes}")
    known = [info.get("id") for info in annotation["segments_info"] if isinstance(info, dict)]
    if unknown := [key for key in np.unique(ids).tolist() if key not in (0, *known)]:
        raise ValueError(f"{path} holds segment ids {unknown[:5]}, which its segments_info lacks")
    return upright(ids, image.orientation) if frame == image.stored_size else ids


def _segments(
    ids: np.ndarray, annotation: dict, categories: Categories, report: ReaderReport
) -> tuple[np.ndarray, list[dict]]:
    """(segments (H, W) int32, segments_info) of one image, numbered from 1."""
    segments, infos = np.zeros(ids.shape, np.int32), []
    kind = f"image {annotation['image_id']}: segment"
    for info in unique_entries(annotation["segments_info"], kind, report.skip_annotation):
        try:
            category, crowd, mask = categories.class_of(info.get("category_id")), read_crowd(info), ids == info["id"]
            if info["id"] == 0 or not mask.any():
                raise ValueError("the map has no pixel of it (0 is void)")
        except ValueError as error:
            report.skip_annotation(f"{kind} {info['id']}", error)
            continue
        thing = categories.vocabulary.is_thing[category]
        infos.append(describe_segment(mask, len(infos) + 1, category, thing, crowd))
        segments[mask] = len(infos)
        report.annotations_read += 1
    return segments, infos
