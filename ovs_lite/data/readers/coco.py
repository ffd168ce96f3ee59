"""COCO instances and captions (Lin et al., ECCV 2014) as records: one segment per instance, crowds kept.

COCO's masks overlap, a record's segments do not. Rule: crowds are painted first, then instances from large to small, so
that the small ones stay visible; area and bbox are those of the painted pixels, never those of the JSON. An instance
that others hide entirely is left out and counted. Pixels that nobody owns are void, not background.

Orientation: where the JSON's width and height are those of the stored pixels, masks turn with the EXIF orientation of
the image; where they are those of the upright image alone, masks stay.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovs_lite.data.images import ImageFile, read_image_file, upright
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name
from ovs_lite.data.rle import segmentation_to_mask
from ovs_lite.data.segments import describe_segment
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary

UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters; surrogates, which UTF-8 lacks


def iter_coco(
    images_dir: str | Path,
    instances_json: str | Path,
    captions_json: str | Path | None = None,
    report: ReaderReport | None = None,
    vocabulary: Vocabulary | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one record per image, in the order of the image ids, instances' and captions' images together.

    An image that only the captions know has segments None; one without instances has an all-void map. Bad images
    and annotations are skipped and listed in `report`: call report.check() afterwards. vocabulary: default "coco".
    Raises FileNotFoundError for a missing file or folder, ValueError for a JSON file of another layout.
    """
    report = ReaderReport() if report is None else report
    vocabulary = vocabulary or load_vocabulary("coco")
    if not Path(images_dir).is_dir():
        raise FileNotFoundError(f"no image folder at {images_dir}")
    instances = _read_json(instances_json)
    captions = _read_json(captions_json) if captions_json is not None else {"images": [], "annotations": []}
    images = _index_images(instances, report)
    annotated = set(images)
    for key, entry in _index_images(captions, report).items():
        images.setdefault(key, entry)
    masks = _by_image(instances["annotations"], annotated, "instance", report)
    texts = _by_image(captions["annotations"], set(images), "caption", report)
    categories = _category_ids(instances, vocabulary)
    for key in sorted(images):
        picture = _picture(Path(images_dir), images[key], report)
        if picture is None:
            continue
        record = {"image_id": str(key), "image": picture.encoded, "segments": None, "segments_info": None}
        if key in annotated:
            painted = _paint(masks.get(key, []), _stored(images[key], picture), picture, categories, vocabulary, report)
            record["segments"], record["segments_info"] = painted
            report.count_segments(painted[1])
        record["captions"] = _captions(texts.get(key, []), report)
        report.read += 1
        yield record


def _read_json(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no annotation file at {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from None
    lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
    if not lists:
        raise ValueError(f"{path} has another layout than COCO's, expected an object with lists images and annotations")
    return content


def _index_images(content: dict[str, Any], report: ReaderReport) -> dict[int, dict]:
    """Image id -> its entry; the first one counts where an id comes twice."""
    images: dict[int, dict] = {}
    for entry in content["images"]:
        key = entry.get("id") if isinstance(entry, dict) else None
        if type(key) is not int:
            report.skip(f"entry {str(entry)[:80]}", "no integer id")
        elif key in images:
            report.skip(f"image id {key}", "the id comes twice in the JSON; the first entry counts")
        else:
            images[key] = entry
    return images


def _by_image(annotations: list, known: set[int], kind: str, report: ReaderReport) -> dict[int, list[dict]]:
    """Image id -> its annotations in the order of their ids. Duplicate ids and unknown images are skipped."""
    groups: dict[int, list[dict]] = {}
    seen: set[int] = set()
    for entry in annotations:
        key = entry.get("id") if isinstance(entry, dict) else None
        if type(key) is not int:
            report.skip_annotation(f"{kind} {str(entry)[:80]}", "no integer id")
        elif key in seen:
            report.skip_annotation(f"{kind} {key}", "the id comes twice in the JSON; the first entry counts")
        elif type(entry.get("image_id")) is not int or entry["image_id"] not in known:
            report.skip_annotation(f"{kind} {key}", f"image id {entry.get('image_id')!r} is not in the JSON")
        else:
            seen.add(key)
            groups.setdefault(entry["image_id"], []).append(entry)
    return {key: sorted(group, key=lambda entry: entry["id"]) for key, group in groups.items()}


def _category_ids(content: dict[str, Any], vocabulary: Vocabulary) -> dict[int, int]:
    """COCO category id -> class id. A category whose name is not the vocabulary's at that id stays out."""
    expected = vocabulary.by_source_id()
    listed = content.get("categories")
    if not isinstance(listed, list):
        return expected
    entries = [entry for entry in listed if isinstance(entry, dict) and type(entry.get("id")) is int]
    claims = {entry["id"]: entry.get("name") for entry in entries}
    return {source: index for source, index in expected.items() if claims.get(source) == vocabulary.names[index]}


def _picture(images_dir: Path, entry: dict, report: ReaderReport) -> ImageFile | None:
    try:
        picture = read_image_file(images_dir / plain_file_name(entry.get("file_name")))
        size = (entry.get("height"), entry.get("width"))
        if size not in (picture.stored_size, (picture.height, picture.width)):
            raise ValueError(f"the JSON says {size[1]} x {size[0]}, it is {picture.width} x {picture.height} pixels")
    except (ValueError, OSError) as error:
        report.skip(entry.get("file_name") or f"image id {entry['id']}", error)
        return None
    return picture


def _stored(entry: dict, picture: ImageFile) -> bool:
    """Whether the JSON speaks of the pixels as stored, before the EXIF orientation."""
    return (entry["height"], entry["width"]) == picture.stored_size


def _paint(
    annotations: list[dict],
    stored: bool,
    picture: ImageFile,
    categories: dict[int, int],
    vocabulary: Vocabulary,
    report: ReaderReport,
) -> tuple[np.ndarray, list[dict]]:
    """(segments (H, W) int32, segments_info) of one image; segment ids follow the order of the annotation ids."""
    frame = picture.stored_size if stored else (picture.height, picture.width)
    masks = []
    for annotation in annotations:
        try:
            mask, category, crowd = _instance(annotation, frame, categories)
        except ValueError as error:
            report.skip_annotation(f"instance {annotation['id']} of image {annotation['image_id']}", error)
            continue
        masks.append((upright(mask, picture.orientation) if stored else mask, category, crowd))
        report.annotations_read += 1
    segments = np.zeros((picture.height, picture.width), dtype=np.int32)
    for index in sorted(range(len(masks)), key=lambda i: (not masks[i][2], -int(masks[i][0].sum()), i)):
        segments[masks[index][0]] = index + 1
    visible = np.bincount(segments.ravel(), minlength=len(masks) + 1)[1:] > 0
    report.covered += int((~visible).sum())
    infos = [
        describe_segment(segments == index + 1, index + 1, category, vocabulary.is_thing[category], crowd)
        for index, (_, category, crowd) in enumerate(masks)
        if visible[index]
    ]
    return segments, infos


def _instance(annotation: dict, frame: tuple[int, int], categories: dict[int, int]) -> tuple[np.ndarray, int, bool]:
    """(mask (H, W) bool in the JSON's frame, class id, is it a crowd). Raises ValueError."""
    category, crowd = annotation.get("category_id"), annotation.get("iscrowd", 0)
    if type(category) is not int or category not in categories:
        raise ValueError(f"got category id {category!r}, which the vocabulary does not have under the JSON's name")
    if crowd not in (0, 1):
        raise ValueError(f"got iscrowd {crowd!r}, expected 0 or 1")
    mask = segmentation_to_mask(annotation.get("segmentation"), *frame)
    return mask, categories[category], bool(crowd)


def _captions(entries: list[dict], report: ReaderReport) -> list[str]:
    captions = []
    for entry in entries:
        text = entry.get("caption")
        words = " ".join(UNWRITABLE.sub(" ", text).split()) if isinstance(text, str) else ""
        if not words:
            report.skip_annotation(f"caption {entry['id']}", "no text")
            continue
        captions.append(words)
        report.annotations_read += 1
    return captions
