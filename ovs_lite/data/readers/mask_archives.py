"""SA-1B (Kirillov et al., ICCV 2023): images with masks that overlap and have no class, read from its tar files.

A tar file holds NAME.jpg and NAME.json; the JSON holds `image` {width, height, ...} and `annotations`, a list of
{segmentation: COCO RLE, area, ...}. Nothing is extracted.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ovs_lite.data.images import read_image_file, upright
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name
from ovs_lite.data.rle import decode_rle, encode_rle, rle_area

MAX_IMAGE_BYTES, MAX_JSON_BYTES = 50_000_000, 100_000_000
KINDS = {".jpg": "image", ".json": "masks"}


def iter_mask_archives(paths: Sequence[str | Path], report: ReaderReport | None = None) -> Iterator[dict[str, Any]]:
    """Yield one record per image of the tar files, in their order: overlapping `masks` as COCO RLE, no segments.

    image_id: the stem of the image's name ("sa_1"). A mask that cannot be used, and an image without partner, is
    skipped and listed in `report`: call report.check() afterwards. Raises FileNotFoundError, or ValueError for a file
    that is no tar file.
    """
    report = ReaderReport() if report is None else report
    for path in paths:
        try:
            with tarfile.open(path, "r:") as archive:
                yield from _records(archive, Path(path), report)
        except FileNotFoundError:
            raise FileNotFoundError(f"no tar file at {path}") from None
        except tarfile.TarError as error:
            raise ValueError(f"{path} is no whole tar file: {error}; download it again") from None


def _records(archive: tarfile.TarFile, path: Path, report: ReaderReport) -> Iterator[dict[str, Any]]:
    waiting: dict[str, dict[str, bytes]] = {}
    for info in archive:
        archive.members = []  # else every header ever read is kept
        kind = KINDS.get(PurePosixPath(info.name).suffix.lower())
        if info.isdir() or kind is None:
            if not info.isdir():
                report.unused[PurePosixPath(info.name).suffix[1:] or "without a suffix"] += 1
            continue
        try:
            content = _content(archive, info, kind)
        except ValueError as error:
            report.skip(f"{path.name}/{info.name}", error)
            continue
        stem = PurePosixPath(info.name).stem
        parts = waiting.setdefault(stem, {})
        parts[kind] = content
        if len(parts) == len(KINDS):
            del waiting[stem]
            try:
                record = _record(stem, parts["image"], parts["masks"], report)
            except (ValueError, RecursionError) as error:
                report.skip(f"{path.name}/{stem}", error)
                continue
            report.read += 1
            yield record
    archive.fileobj.seek(archive.offset)  # tarfile takes a header that is damaged for the end
    if archive.fileobj.read(tarfile.BLOCKSIZE) not in (b"", bytes(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no header at byte {archive.offset}")
    for stem, parts in waiting.items():
        report.skip(f"{path.name}/{stem}", f"only its {', '.join(parts)} in the tar file, expected image and masks")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo, kind: str) -> bytes:
    plain_file_name(info.name)
    most = MAX_IMAGE_BYTES if kind == "image" else MAX_JSON_BYTES
    if not info.isreg() or info.issparse() or info.size > most:
        raise ValueError(f"a link, a device, or {info.size} bytes, expected a regular file of at most {most}")
    content = archive.extractfile(info).read()
    if len(content) < info.size:
        raise ValueError(f"got {len(content)} of {info.size} bytes")
    return content


def _record(stem: str, encoded: bytes, text: bytes, report: ReaderReport) -> dict[str, Any]:
    image, content = read_image_file(encoded), json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError("its JSON has another layout than SA-1B's, expected an object with a list annotations")
    about = content.get("image") if isinstance(content.get("image"), dict) else {}
    size, frames = (about.get("height"), about.get("width")), (image.stored_size, (image.height, image.width))
    if size not in frames:
        raise ValueError(f"its JSON says {size[1]} x {size[0]} pixels, it has {image.width} x {image.height}")
    masks = []
    for number, annotation in enumerate(content["annotations"]):
        try:
            rle = annotation.get("segmentation") if isinstance(annotation, dict) else None
            if not rle_area(rle, *size):
                raise ValueError("got a mask without a pixel")
        except ValueError as error:
            report.skip_annotation(f"{stem}, mask {number}", error)
            continue
        masks.append(_upright(rle, image.orientation if size == frames[0] else 1))
        report.annotations_read += 1
    record = {"image_id": stem, "image": image.encoded, "segments": None, "segments_info": None, "captions": []}
    return record | {"masks": masks}


def _upright(rle: dict, orientation: int) -> dict[str, Any]:
    """The mask on the upright image, as text RLE; one that is so already is not drawn, which takes most of the time."""
    if orientation == 1 and isinstance(rle["counts"], str):
        return {"size": list(rle["size"]), "counts": rle["counts"]}
    return encode_rle(np.ascontiguousarray(upright(decode_rle(rle), orientation)))
