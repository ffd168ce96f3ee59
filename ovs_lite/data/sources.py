"""How each reader of the catalogue is called: a set's split as it lies in the user's folder -> its records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovs_lite.data.loaders.web_shards import WebShards
from ovs_lite.data.readers.coco import iter_coco
from ovs_lite.data.readers.coco_panoptic import iter_coco_panoptic
from ovs_lite.data.readers.mask_archives import iter_mask_archives
from ovs_lite.data.readers.narratives import iter_narratives
from ovs_lite.data.readers.pixel_rules import pixel_rule
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.readers.semantic import iter_label_maps
from ovs_lite.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Source:
    """What a reader gets: the folder, a split's paths and rules, where faults go, whether images may be absent."""

    root: Path
    split: Mapping[str, Any]
    vocabulary: Vocabulary | None
    report: ReaderReport
    subset: bool
    part: slice = field(default_factory=lambda: slice(None))  # of its images, or archives, in their order

    def path(self, key: str) -> Path | None:
        """A path of the split; None where it has none of that name."""
        return self.root / self.split[key] if self.split.get(key) else None

    def files(self, key: str) -> list[Path]:
        """The files of a pattern, sorted. Raises FileNotFoundError without any."""
        found = sorted(self.root.glob(self.split[key]))
        if not found:
            raise FileNotFoundError(f"no {self.split[key]} in {self.root}")
        return found


def _instances(source: Source) -> Iterator[dict]:
    paths = (source.path("images"), source.path("json"), source.path("captions"))
    return iter_coco(*paths, source.report, source.vocabulary, source.subset, source.part)


def _panoptic(source: Source) -> Iterator[dict]:
    paths = (source.path("images"), source.path("maps"), source.path("json"), source.path("captions"))
    return iter_coco_panoptic(*paths, source.report, source.vocabulary, source.subset, source.part)


def _label_maps(source: Source) -> Iterator[dict]:
    split, only = source.split, None
    if source.path("list"):
        only = set(_names(source.path("list")))
    rule = pixel_rule(split.get("pixels"), source.vocabulary, source.path("labels"))
    yield from iter_label_maps(
        source.path("images"), source.path("maps"), source.vocabulary, source.report, source.subset, pixels=rule,
        endings=tuple(split.get("endings", ("", ""))), only=only, short_side=split.get("short_side"),
        part=source.part,
    )  # fmt: skip
    if only and not source.subset and source.part.stop in (None, 0):  # of all images, not of each part
        for name in sorted(only.difference(source.report.listed)):
            source.report.skip(name, f"{source.split['list']} names it, but it has neither an image nor a label map")


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no list of images at {path}")
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _narratives(source: Source) -> Iterator[dict]:
    given = (source.path("images"), source.files("lines"), source.split["file_name"])
    return iter_narratives(*given, source.report, source.subset, source.part)


def _masks(source: Source) -> Iterator[dict]:
    files = source.files("archives")
    source.report.listed = [path.name for path in files]
    return iter_mask_archives(files[source.part], source.report)


def _shards(source: Source) -> Iterator[dict]:
    shards = WebShards(source.files("shards"))
    seen = set()
    for index in range(len(shards)):
        record = shards[index]
        if record["image_id"] not in seen:  # another stands in for a bad one
            seen.add(record["image_id"])
            source.report.read += 1
            source.report.annotations_read += len(record["captions"])
            yield record
    source.report.skipped += shards.report.skipped


RECORDS = {
    "instances": _instances,
    "panoptic": _panoptic,
    "label_maps": _label_maps,
    "narratives": _narratives,
    "shards": _shards,
    "masks": _masks,
}
