"""The catalogue of public data sets: addresses, licences, sizes, counts and layouts, read from catalogue.yaml.

What is not known is None, never a guess. Paths of a split are below the folder of its set, in downloads/ or wherever
the user keeps it; prepared splits lie in `data_root`/SET/SPLIT.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ovs_lite.config import lookup
from ovs_lite.data.download import Expected
from ovs_lite.files import data_root

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
DOWNLOADS = "downloads"
DIGESTS = ("sha256", "md5")
# reader -> the keys that a split of it has, and those that it may have
READERS = {
    "instances": ({"images", "json"}, {"captions"}),
    "panoptic": ({"images", "maps", "json"}, {"captions"}),
    "label_maps": ({"images", "maps"}, {"list", "endings", "pixels", "labels", "short_side"}),
    "narratives": ({"images", "lines", "file_name"}, set()),
    "shards": ({"shards"}, set()),
    "masks": ({"archives"}, set()),
}


@dataclass(frozen=True)
class WebFile:
    """A file of a set. url None: the user brings it, as `steps` says. See the head of catalogue.yaml."""

    folder: str
    url: str | None
    bytes: int | None
    unpack: str | None
    gives: tuple[str, ...]
    evidence: str
    name: str = ""
    steps: str = ""
    nested: tuple[str, ...] = ()
    sha256: str | None = None
    md5: str | None = None

    @property
    def file_name(self) -> str:
        """Of the file itself, in downloads/FOLDER."""
        return self.name or Path(urlsplit(self.url or "").path).name

    @property
    def expected(self) -> Expected:
        """What is known of it for `download`."""
        algorithm = next((name for name in DIGESTS if getattr(self, name)), None)
        return Expected(self.bytes, algorithm, getattr(self, algorithm) if algorithm else None)


@dataclass(frozen=True)
class DataSet:
    """A set: what it needs (`files`), how it is read (`reader`, `splits`), and who needs it: recipes, `evaluate`, or
    notebooks of a folder.

    splits: name -> {count: records expected or None, and the paths and rules of its reader, see READERS}.
    survivors: of sets of links, {of: links, fraction: still there, or None, published: pairs of a paper, note}.
    """

    name: str
    title: str
    page: str
    licence: str
    folder: str
    files: tuple[str, ...]
    reader: str
    needed_by: tuple[str, ...]
    splits: Mapping[str, Mapping[str, Any]]
    vocabulary: str | None = None
    columns: str = "segments"
    login: bool = False
    survivors: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


@dataclass(frozen=True)
class Catalogue:
    """All sets and all files by name."""

    files: Mapping[str, WebFile]
    sets: Mapping[str, DataSet]

    def find(self, name: str) -> DataSet:
        """A set by name. Raises ValueError listing the valid names."""
        return lookup(self.sets, name, "data set")

    def files_of(self, data_set: DataSet) -> list[WebFile]:
        """The files that a set needs, in the order of the catalogue."""
        return [self.files[name] for name in data_set.files]


def load_catalogue(path: str | Path | None = None) -> Catalogue:
    """The catalogue of the kit, or one of the same layout. Raises ValueError naming the entry that is wrong."""
    return _load(str(path or CATALOGUE))


@lru_cache(maxsize=8)
def _load(path: str) -> Catalogue:
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != {"files", "sets"}:
        raise ValueError(f"{path}: got no mapping of files and sets")
    files = {name: _entry(WebFile, entry, f"{path}: file {name}") for name, entry in content["files"].items()}
    sets = {}
    for name, entry in content["sets"].items():
        sets[name] = _entry(DataSet, {"name": name} | entry, f"{path}: set {name}")
        _check_set(sets[name], files, f"{path}: set {name}")
    for name, file in files.items():
        _check_file(file, f"{path}: file {name}")
    return Catalogue(files, sets)


def _entry(kind: type, entry: Any, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    if not isinstance(entry, dict) or not set(entry) <= known:
        raise ValueError(f"{where}: got {entry if not isinstance(entry, dict) else sorted(set(entry) - known)}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_file(file: WebFile, where: str) -> None:
    """Raise ValueError for a file that nobody could bring, or paths that leave its folder."""
    if bool(file.url) == bool(file.steps):
        raise ValueError(f"{where}: expected either an url or steps for the user")
    for path in (file.folder, file.file_name, file.unpack or ".", *file.gives, *file.nested):
        if not path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(f"{where}: got path {path!r}, expected one inside its folder")


def _check_set(data_set: DataSet, files: Mapping[str, WebFile], where: str) -> None:
    needed, optional = lookup(READERS, data_set.reader, "reader")
    for file in data_set.files:
        if lookup(files, file, "file").folder != data_set.folder:
            raise ValueError(f"{where}: file {file} lies in {files[file].folder}, expected {data_set.folder}")
    for name, split in data_set.splits.items():
        keys = set(split) - {"count"}
        if not needed <= keys <= needed | optional or "count" not in split:
            allowed = f"count, {', '.join(sorted(needed))} and perhaps {', '.join(sorted(optional))}"
            raise ValueError(f"{where}, split {name}: got {sorted(split)}, expected {allowed}")


def downloads_folder(data_set: DataSet | WebFile) -> Path:
    """Where the files of a set are downloaded to and unpacked, unless the user keeps them elsewhere."""
    return data_root() / DOWNLOADS / data_set.folder


def prepared_folder(data_set: DataSet, split: str) -> Path:
    """Where a prepared split lies."""
    return data_root() / data_set.name / split
