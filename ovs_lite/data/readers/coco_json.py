"""COCO's JSON files (Lin et al., ECCV 2014): what the readers of their layouts share.

Orientation: where the JSON's width and height are those of the stored pixels, masks turn with the EXIF orientation of
the image; where they are those of the upright image alone, masks stay.
"""

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovs_lite.data.caption_text import clean_caption
from ovs_lite.data.images import ImageFile, read_image_file
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name
from ovs_lite.data.vocabulary import Vocabulary

LAYOUTS = {  # layout -> what its annotations hold and no other's, and the call that reads it
    "panoptic": ("segments_info", "iter_coco_panoptic(images_dir, maps_dir, panoptic_json)"),
    "captions": ("caption", "iter_coco(images_dir, instances_json, captions_json)"),
    "instances": ("segmentation", "iter_coco(images_dir, instances_json)"),
}
SHOWN = 3


@dataclass(frozen=True)
class Categories:
    """The categories of a JSON file in terms of a vocabulary.

    names: COCO category id -> the JSON's name. classes: COCO category id -> class id, where id and name agree.
    """

    vocabulary: Vocabulary
    names: dict[int, str]
    classes: dict[int, int]

    def class_of(self, category: Any) -> int:
        """Class id of an annotation's category_id. Raises ValueError with both names."""
        if type(category) is int and category in self.classes:
            return self.classes[category]
        raise ValueError(f"got {self.compared(category)}")

    def compared(self, category: Any) -> str:
        """What the JSON and the vocabulary say of a category id."""
        if type(category) is not int or category not in self.names:
            return f"category id {category!r}, which the JSON's categories do not list"
        index = self.vocabulary.by_source_id().get(category)
        here = "unknown" if index is None else repr(self.vocabulary.source_names[index])
        return f"category {category}, {self.names[category]!r} in the JSON and {here} in {self.vocabulary.name!r}"


def check_folder(folder: str | Path, kind: str) -> None:
    """Raise FileNotFoundError where there is no folder of `kind`."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no {kind} folder at {folder}")


def read_coco_json(path: str | Path, layout: str) -> dict[str, Any]:
    """The content of a JSON file of a layout of `LAYOUTS`.

    Raises FileNotFoundError, or ValueError with the layout that the file seems to have and the call that reads it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no annotation file at {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from None
    lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))
    if not lists:
        raise ValueError(f"{path} has another layout than COCO's, expected an object with lists images and annotations")
    entries = [entry for entry in content["annotations"] if isinstance(entry, dict)]
    held = Counter(name for entry in entries for name, (key, _) in LAYOUTS.items() if key in entry)
    if held and layout not in held:
        [(found, _)] = held.most_common(1)
        key, call = LAYOUTS[found]
        seen = f"{path} looks like COCO's {found} layout (its annotations hold {key!r})"
        raise ValueError(f"{seen}, expected {layout}; {call} reads it")
    return content


def read_categories(content: dict[str, Any], vocabulary: Vocabulary, path: str | Path) -> Categories:
    """The categories of a JSON file; without a list of them the vocabulary's are taken.

    Raises ValueError where none agrees with the vocabulary by id and name, or more contradict it than agree.
    """
    own, listed = vocabulary.by_source_id(), content.get("categories")
    names = {source: vocabulary.source_names[index] for source, index in own.items()}
    if isinstance(listed, list):
        entries = [entry for entry in listed if isinstance(entry, dict) and type(entry.get("id")) is int]
        names = {entry["id"]: str(entry.get("name")) for entry in entries}
    classes = {source: i for source, i in own.items() if names.get(source) == vocabulary.source_names[i]}
    categories = Categories(vocabulary, names, classes)
    known = set(vocabulary.source_names)
    contradicting = [key for key, name in names.items() if key not in classes and (key in own or name in known)]
    if content["annotations"] and (not classes or len(contradicting) > len(classes)):
        wrong = contradicting or list(names)
        shown = "; ".join(categories.compared(key) for key in wrong[:SHOWN]) or "no category at all"
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        advice = "expected the same ids and names; pass a vocabulary= that has the JSON's (--vocabulary in training)"
        raise ValueError(f"{path} does not fit vocabulary {vocabulary.name!r}: got {shown}{more}; {advice}")
    return categories


def unique_entries(entries: list, kind: str, skip: Callable[[str, str], None], key: str = "id") -> Iterator[dict]:
    """The entries with an integer under `key`, the first of each; `skip` hears of the others."""
    seen: set[int] = set()
    for entry in entries:
        number = entry.get(key) if isinstance(entry, dict) else None
        if type(number) is not int:
            skip(f"{kind} {str(entry)[:80]}", f"no integer {key}")
        elif number in seen:
            skip(f"{kind} {number}", f"the {key} comes twice in the JSON; the first entry counts")
        else:
            seen.add(number)
            yield entry


def by_image(annotations: list, known: Container[int], kind: str, report: ReaderReport) -> dict[int, list[dict]]:
    """Image id -> its annotations in the order of their ids. Duplicate ids and unknown images are skipped."""
    groups: dict[int, list[dict]] = {}
    for entry in sorted(unique_entries(annotations, kind, report.skip_annotation), key=lambda entry: entry["id"]):
        image = entry.get("image_id")
        if type(image) is int and image in known:
            groups.setdefault(image, []).append(entry)
        else:
            report.skip_annotation(f"{kind} {entry['id']}", f"image id {image!r} is not in the JSON")
    return groups


def coco_images(
    folder: str | Path, entries: Iterable[dict], report: ReaderReport, subset: bool, part: slice
) -> Iterator[tuple[dict, ImageFile, tuple[int, int]]]:
    """(its entry in the JSON, image, (H, W) of its annotations) in the order of the ids; bad images are skipped.

    subset: images that are not on disk are no fault, only counted. part: of the images that are listed, in their order.
    """

    def path_of(entry: dict) -> Path:
        return Path(folder) / plain_file_name(entry.get("file_name"))

    entries = present(sorted(entries, key=lambda entry: entry["id"]), path_of, report, subset)
    report.listed = [str(entry["id"]) for entry in entries]
    for entry in entries[part]:
        try:
            image = read_image_file(path_of(entry))
            size, frames = (entry.get("height"), entry.get("width")), (image.stored_size, (image.height, image.width))
            if size not in frames:
                raise ValueError(f"the JSON says {size[1]} x {size[0]}, it is {image.width} x {image.height} pixels")
        except (ValueError, OSError) as error:
            report.skip(entry.get("file_name") or f"image id {entry['id']}", error)
            continue
        yield entry, image, frames[frames.index(size)]


def present(entries: list, path: Callable[[Any], Path], report: ReaderReport, subset: bool) -> list:
    """The entries; of a subset only those whose file is there, the others counted. A name that is refused stays."""

    def there(entry: Any) -> bool:
        try:
            return path(entry).exists()
        except (ValueError, OSError):
            return True

    found = [entry for entry in entries if there(entry)] if subset else entries
    report.absent += len(entries) - len(found)
    return found


def read_crowd(annotation: dict) -> bool:
    """Whether an annotation is a crowd. Raises ValueError."""
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"got iscrowd {crowd!r}, expected 0 or 1")
    return bool(crowd)


def read_captions(entries: list[dict], report: ReaderReport) -> list[str]:
    """The texts of caption annotations, each on one line; those without text are skipped."""
    captions = []
    for entry in entries:
        text = entry.get("caption")
        if text := clean_caption(text) if isinstance(text, str) else "":
            captions.append(text)
            report.annotations_read += 1
        else:
            report.skip_annotation(f"caption {entry['id']}", "no text")
    return captions
