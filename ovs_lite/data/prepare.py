"""What the user downloaded becomes records: a set of the catalogue, read by its reader, written as a split.

Sets of image-text pairs stay in their shards, which training reads as they are: they are indexed and counted, and
written as a split only where a limit asks for a few of them.
"""

import hashlib
import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ovs_lite.data.catalogue import DataSet, downloads_folder, prepared_folder
from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.parts import Share, parts_of, until_stopped, write_in_parts
from ovs_lite.data.readers.pixel_rules import CONTEXT_CLASSES, CONTEXT_SOURCE, class_list, context_vocabulary
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.record import is_made, read_count, write_split
from ovs_lite.data.sources import RECORDS, Source
from ovs_lite.data.vocabulary import Vocabulary, load_vocabulary
from ovs_lite.files import write_json

SHARDS = "shards.json"
VOCABULARY = "vocabulary.json"
IMAGES = 4096  # of a part, at the most: each part reads the annotations of all


@dataclass(frozen=True)
class Prepared:
    """A split: where it lies, how many records it has, whether it was there already, and what the reader reports."""

    folder: Path
    count: int
    kept: bool = False
    report: str = ""


def prepare(
    data_set: DataSet,
    root: str | Path | None = None,
    splits: Sequence[str] = (),
    limit: int | None = None,
    subset: bool = False,
    fresh: bool = False,
    progress: bool = True,
    max_skipped: float = 0.01,
    share: Share | None = None,
) -> Iterator[Prepared]:
    """Write the splits of a set as records into `data_root`/SET/SPLIT, and yield each; what is there is kept. SIGTERM
    ends it, see `until_stopped`, and with `share` `write_in_parts`.

    root: the set's folder, laid out as in the catalogue; default in downloads/. splits: default all.
    limit: take the first so many images. subset: of the images that the annotations list some may be absent.
    fresh: make splits again that are there. max_skipped: share of images that may be bad, see `ReaderReport.check`.
    share: only this job's images (of mask archives: archives), see `write_in_parts`; `max_skipped` is of each part, to
        which faults of the annotations that concern no image of it count by its share of the images.
    Raises FileNotFoundError for what is missing, ValueError for unknown splits, a limit below 1, and bad data.
    """
    if unknown := [name for name in splits if name not in data_set.splits]:
        raise ValueError(f"got split {unknown[0]!r}, expected one of {', '.join(data_set.splits)} for {data_set.name}")
    if limit is not None and limit < 1:
        raise ValueError(f"got limit {limit}, expected 1 or more")
    if share and (data_set.reader == "shards" or limit is not None or fresh):
        given = f"got a part of {data_set.name}" + " with a limit" * (limit is not None) + " afresh" * fresh
        raise ValueError(f"{given}, expected a whole set that is written as records; shards are indexed in one go")
    root = downloads_folder(data_set) if root is None else Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root}; see: ovs-lite data get {data_set.name}")
    for name in splits or data_set.splits:
        folder = prepared_folder(data_set, name)
        source = Source(root, data_set.splits[name], set_vocabulary(data_set, root), ReaderReport(), subset)
        if data_set.reader == "shards" and limit is None:
            yield _index_shards(source, folder, max_skipped)
            continue
        creator = {"set": data_set.name, "split": name, "reader": data_set.reader, "limit": limit, "subset": subset}
        creator |= {"from": str(root.resolve()), "vocabulary": source.vocabulary.name if source.vocabulary else None}
        if is_made(folder, creator) and not fresh:
            if not (folder.parent / VOCABULARY).exists():  # a run that was stopped between the two
                _write_vocabulary(source, folder)
            yield Prepared(folder, read_count(folder), kept=True)
            continue
        if share:
            done = _prepare_share(source, folder, creator, data_set.columns, share, max_skipped, progress)
            if done.count:
                _write_vocabulary(source, folder)
            yield done
            continue
        records = _checked(until_stopped(islice(RECORDS[data_set.reader](source), limit)), source.report, max_skipped)
        total = limit or (None if subset else source.split["count"])
        options = {"creator": creator, "columns": data_set.columns, "total": total}
        manifest = write_split(records, folder, **options, overwrite=True, progress=progress)
        _write_vocabulary(source, folder)
        yield Prepared(folder, manifest["count"], report=source.report.summary())


def _prepare_share(
    source: Source,
    folder: Path,
    creator: dict[str, Any],
    columns: str,
    share: Share,
    max_skipped: float,
    progress: bool,
) -> Prepared:
    """The images or archives of one job, or all that the jobs made put together."""
    reader, archives = RECORDS[creator["reader"]], creator["reader"] == "masks"
    whole = _listing(source, reader)
    total, reports = len(whole.listed), []
    size = 1 if archives else math.ceil(total / math.ceil(total / IMAGES))  # whatever the number of jobs
    parts = parts_of(total, size)
    about = {"of": hashlib.sha256("\n".join(whole.listed).encode()).hexdigest(), "size": size}

    def made(numbers: range) -> Iterator[dict]:
        some = replace(source, part=slice(numbers.start, numbers.stop), report=ReaderReport())
        yield from reader(some)
        _share_faults(some.report, whole, numbers, total)
        some.report.check(max_skipped)
        reports.append(some.report)

    if write_in_parts(folder, made, total, creator, columns, progress, folder.name, share, size, about):
        return Prepared(folder, read_count(folder))
    if not share.number:
        return Prepared(folder, 0, report="another process puts the parts together")
    job, mine = f"{share.number}/{share.count}", parts[share.number - 1 :: share.count]
    if not mine:
        return Prepared(folder, 0, report=f"nothing is left for job {job}, as there are {len(parts)} parts")
    done = f"made part {job}, {sum(map(len, mine))} {'archives' if archives else 'images'} of {total}"
    said = [ReaderReport.joined(reports).summary()] if reports else []
    return Prepared(folder, 0, report="\n".join([done, *said]))


def _listing(source: Source, reader: Callable[[Source], Iterator[dict]]) -> ReaderReport:
    """What there is to read, and the faults of what lists it. Raises ValueError where there is nothing."""
    asked = replace(source, part=slice(0, 0), report=ReaderReport())
    deque(reader(asked), maxlen=0)
    if not asked.report.listed:
        raise ValueError(f"no image could be read\n{asked.report.summary()}")
    return asked.report


def _share_faults(report: ReaderReport, whole: ReaderReport, numbers: range, total: int) -> None:
    """Every part meets the faults of what lists its images: leave it as many of them as it has of the images."""
    for kind in ("skipped", "annotations_skipped"):
        faults, own = getattr(whole, kind), getattr(report, kind)
        first, last = (len(faults) * end // total for end in (numbers.start, numbers.stop))
        known = set(faults)
        own[:] = faults[first:last] + [fault for fault in own if fault not in known]


def set_vocabulary(data_set: DataSet, root: Path) -> Vocabulary | None:
    """The set's vocabulary, where its records have classes; that of 459 classes is made from the user's labels.txt."""
    if data_set.vocabulary:
        return load_vocabulary(data_set.vocabulary)
    labels = next((split["labels"] for split in data_set.splits.values() if split.get("labels")), None)
    return context_vocabulary(root / labels) if labels else None


def _write_vocabulary(source: Source, folder: Path) -> None:
    """Next to the splits, the vocabulary that no file of the kit holds."""
    if source.vocabulary and source.path("labels") and len(source.vocabulary) == CONTEXT_CLASSES:
        content = class_list(source.path("labels"), source.vocabulary.name, CONTEXT_SOURCE, CONTEXT_CLASSES)
        write_json(folder.parent / VOCABULARY, content)


def _checked(records: Iterator[dict], report: ReaderReport, max_skipped: float) -> Iterator[dict]:
    """The records; at their end the report is checked, so that a split of bad data is never finished."""
    yield from records
    report.check(max_skipped)


def _index_shards(source: Source, folder: Path, max_skipped: float) -> Prepared:
    """Read the headers of all shards and write what is there to shards.json: pairs, bad shards, digest of the list.

    It takes the place of records that an earlier call with a limit wrote. max_skipped: share of shards that may be bad.
    """
    shards = WebShards(source.files("shards"))
    files = [[path.name, path.stat().st_size] for path in shards.paths]
    content = {
        "folder": str(source.root),
        "pairs": len(shards),
        "shards": len(files),
        "bad_shards": shards.bad_shards,
        "digest": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        "files": files,
    }
    found = len(files) + shards.bad_shards
    if shards.bad_shards > max_skipped * found:
        given = f"{source.root}: {shards.bad_shards} of {found} shards are bad, expected {max_skipped:.0%} at most"
        raise ValueError(f"{given}; get them again, or allow more with --max-skipped\n{shards.report.summary()}")
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / SHARDS, content)
    return Prepared(folder, len(shards), report=shards.report.summary())
