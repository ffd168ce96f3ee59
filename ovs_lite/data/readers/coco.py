"""COCO instances and captions (Lin et al., ECCV 2014) as records: one segment per instance, crowds kept.

COCO's masks overlap, a record's segments do not. Rule: crowds are painted first, then instances from large to small, so
that the small ones stay visible; area and bbox are those of the painted pixels, never those of the JSON. An instance
that others hide entirely is left out and counted. Pixels that nobody owns are void, not background.
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
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.rle import segmentation_to_mask
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary


def iter_coco(
    images_dir: str | Path,
    instances_json: str | Path,
    captions_json: str | Path | None = None,
    report: ReaderReport | None = None,
    vocabulary: Vocabulary | None = None,
    subset: bool = False,
    part: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """Yield one record per image, in the order of the image ids, instances' and captions' images together.

    An image that only the captions know has segments None; one without instances has an all-void map. Bad images
    and annotations are skipped and listed in `report`: call report.check() afterwards. Of a polygon too short to
    draw only itself is left out. vocabulary: default "coco". subset: images that are listed but not on disk are no
    fault, only counted. part: of the images, in their order (`ReaderReport.listed` says how many there are). Raises
    FileNotFoundError for a missing file or folder, ValueError for a JSON file of another layout or of other categories.
    """
    report = ReaderReport() if report is None else report
    vocabulary = vocabulary or load_vocabulary("coco")
    check_folder(images_dir, "image")
    instances, captions = read_coco_json(instances_json, "instances"), {"images": [], "annotations": []}
    captions = captions if captions_json is None else read_coco_json(captions_json, "captions")
    categories = read_categories(instances, vocabulary, instances_json)
    annotated = {entry["id"]: entry for entry in unique_entries(instances["images"], "image id", report.skip)}
    images = {entry["id"]: entry for entry in unique_entries(captions["images"], "image id", report.skip)} | annotated
    masks = by_image(instances["annotations"], annotated, "instance", report)
    texts = by_image(captions["annotations"], images, "caption", report)
    for entry, image, frame in coco_images(images_dir, images.values(), report, subset, part):
        key = entry["id"]
        record = {"image_id": str(key), "image": image.encoded, "segments": None, "segments_info": None}
        if key in annotated:
            painted = _paint(masks.get(key, []), frame, image, categories, report)
            record["segments"], record["segments_info"] = painted
            report.count_segments(painted[1])
        record["captions"] = read_captions(texts.get(key, []), report)
        report.read += 1
        yield record


def _paint(
    annotations: list[dict], frame: tuple[int, int], image: ImageFile, categories: Categories, report: ReaderReport
) -> tuple[np.ndarray, list[dict]]:
    """(segments (H, W) int32, segments_info) of one image; segment ids follow the order of the annotation ids."""
    masks = []
    for annotation in annotations:
        name, faults = f"instance {annotation['id']} of image {annotation['image_id']}", []
        try:
            category, crowd = categories.class_of(annotation.get("category_id")), read_crowd(annotation)
            mask = segmentation_to_mask(annotation.get("segmentation"), *frame, faults)
        except ValueError as error:
            report.skip_annotation(name, error)
            continue
        for fault in faults:
            report.skip_part(name, fault)
        masks.append((upright(mask, image.orientation) if frame == image.stored_size else mask, category, crowd))
        report.annotations_read += 1
    segments = np.zeros((image.height, image.width), dtype=np.int32)
    for index in sorted(range(len(masks)), key=lambda i: (not masks[i][2], -int(masks[i][0].sum()), i)):
        segments[masks[index][0]] = index + 1
    visible = np.bincount(segments.ravel(), minlength=len(masks) + 1)[1:] > 0
    report.covered += int((~visible).sum())
    infos = [
        describe_segment(segments == index + 1, index + 1, category, categories.vocabulary.is_thing[category], crowd)
        for index, (_, category, crowd) in enumerate(masks)
        if visible[index]
    ]
    return segments, infos
