"""Captions in lines: Localized Narratives (Pont-Tuset et al., ECCV 2020) and the like, next to a folder of images.

A line of a .jsonl file holds image_id and caption (and much else, which is not kept), a line of a .tsv file both with a
tab in between. An image that several people described becomes one record with several captions.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ovs_lite.data.caption_text import clean_caption
from ovs_lite.data.images import read_image_file
from ovs_lite.data.readers.coco_json import check_folder, present
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name

MAX_LINE = 20_000_000  # characters; the mouse trace of a long narrative has about 100,000


def iter_narratives(
    images_dir: str | Path,
    paths: Sequence[str | Path],
    file_name: str = "{}.jpg",
    report: ReaderReport | None = None,
    subset: bool = False,
    part: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """Yield one record per image in the order of their first lines: its captions, no segments.

    paths: .jsonl or .tsv files. file_name: format of an image's file name from its id ("{:0>12}.jpg" for COCO).
    Lines and images that cannot be used are skipped and listed in `report`: call report.check() afterwards. subset:
    images that are not on disk are no fault, only counted. part: of the images, in their order (`ReaderReport.listed`
    says how many there are). Raises FileNotFoundError for a missing file or folder.
    """
    report = ReaderReport() if report is None else report
    check_folder(images_dir, "image")
    captions: dict[str, list[str]] = {}
    for path in paths:
        for image_id, text in _lines(Path(path), report):
            captions.setdefault(image_id, []).append(text)

    def path_of(image_id: str) -> Path:
        return Path(images_dir) / plain_file_name(file_name.format(image_id))

    report.listed = present(list(captions), path_of, report, subset)
    for image_id in report.listed[part]:
        texts = captions[image_id]
        try:
            image = read_image_file(path_of(image_id)).encoded
        except (ValueError, OSError) as error:
            report.skip(image_id, error)
            continue
        report.read += 1
        report.annotations_read += len(texts)
        yield {"image_id": image_id, "image": image, "segments": None, "segments_info": None, "captions": texts}


def _lines(path: Path, report: ReaderReport) -> Iterator[tuple[str, str]]:
    """(image id, caption) of the lines that can be used."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of captions at {path}")
    with open(path, encoding="utf-8", errors="replace", newline="\n") as stream:
        number = 0
        while line := stream.readline(MAX_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                yield _tsv(line) if path.suffix == ".tsv" else _json(line)
            except (ValueError, RecursionError) as error:
                report.skip_annotation(f"{path.name}, line {number}", error)


def _json(line: str) -> tuple[str, str]:
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("no JSON object")
    image_id = entry.get("image_id")
    return _checked(str(image_id) if type(image_id) is int else image_id, entry.get("caption"))


def _tsv(line: str) -> tuple[str, str]:
    image_id, tab, text = line.rstrip("\r\n").partition("\t")
    if not tab:
        raise ValueError("no tab between image id and caption")
    return _checked(image_id, text)


def _checked(image_id: Any, text: Any) -> tuple[str, str]:
    if not isinstance(image_id, str) or not image_id.strip():
        raise ValueError(f"got image_id {image_id!r}, expected text")
    caption = clean_caption(text) if isinstance(text, str) else ""
    if not caption:
        raise ValueError("no text")
    return image_id.strip(), caption
