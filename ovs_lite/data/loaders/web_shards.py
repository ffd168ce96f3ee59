"""Image-text pairs in webdataset tar shards, as img2dataset writes them: KEY.jpg, KEY.txt and perhaps KEY.json.

A shard's headers are read once and cached; after that a pair is two reads at known places. Nothing is ever extracted.
"""

import glob
import hashlib
import operator
import os
import posixpath
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ovs_lite.data.images import read_image
from ovs_lite.data.readers.reader_report import ReaderReport, plain_file_name
from ovs_lite.distributed import is_main
from ovs_lite.files import cache_root, replacing

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
PLACES = ("image_at", "image_size", "text_at", "text_size")  # bytes from the shard's start; -1 for no text
MAX_IMAGE_BYTES, MAX_TEXT_BYTES, MAX_KEY_BYTES = 50_000_000, 100_000, 255
MAX_BAD_RUN = 100
WINDOW = 40_000  # samples; the shuffle buffer of TCL's release
BLOCK = 512


class WebShards(Sequence):
    """index -> record {image_id, image (PIL RGB, upright), segments None, segments_info None, captions [text]}.

    paths_or_glob: a path, a pattern with * or with braces ("cc3m-{00000..00331}.tar", "{a,b}.tar"), or a list of these.
    cache: folder of the shards' indices, default `cache_root()`/webshards; safe to delete.
    progress: show a bar while the headers are read.
    image_id is the shard's path below the folder that all shards share, and the key: "cc3m/00000/000000012".

    Only regular files with plain relative names count. A sample that cannot be used (no text, damaged, more than 50 MB
    or 50 million pixels) is listed in `report`, of the process that met it, and the next good one stands in for it. A
    shard that is truncated or no tar file is listed there too, counted in `bad_shards`, and left out. Any number of
    threads and processes may read.
    Raises FileNotFoundError for a shard or pattern without files, ValueError where no shard holds a pair, and where 100
    samples in a row are bad.
    """

    def __init__(
        self,
        paths_or_glob: str | Path | Sequence[str | Path],
        cache: str | Path | None = None,
        progress: bool = True,
    ):
        paths = _shard_paths(paths_or_glob)
        folder = cache_root() / "webshards" if cache is None else Path(cache)
        self.report = ReaderReport()
        self.paths: list[Path] = []
        self._indices: list[np.ndarray] = []
        for path in tqdm(paths, desc="shards", unit=" shards", disable=not (progress and is_main())):
            try:
                self._indices.append(_cached_index(path, folder))
                self.paths.append(path)
            except ValueError as error:
                self.report.skip(path, error)
        self.bad_shards = len(self.report.skipped)
        self._ends = np.cumsum([len(entries) for entries in self._indices], dtype=np.int64)
        if not len(self):
            raise ValueError(f"got {len(paths)} shards without one pair that can be read\n{self.report.summary()}")
        common = os.path.commonpath([path.parent for path in paths])
        self._names = [path.relative_to(common).with_suffix("").as_posix() for path in self.paths]
        self._bad: dict[int, object] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"got sample {index}, expected one of {len(self)}")
        for step in range(MAX_BAD_RUN):
            record = self._record((index + step) % len(self))
            if record is not None:
                return record
        raise ValueError(f"{MAX_BAD_RUN} bad samples in a row from {index}; look at the shard\n{self.report.summary()}")

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """A permutation of all samples, (len,) int64, that reads nearly in sequence: shards in random order, and
        samples shuffled inside windows of 40,000 of that order."""
        rng = np.random.default_rng((seed, epoch, len(self)))
        starts = self._ends - [len(entries) for entries in self._indices]
        order = np.concatenate([np.arange(starts[s], self._ends[s]) for s in rng.permutation(len(starts))])
        for start in range(0, len(order), WINDOW):
            rng.shuffle(order[start : start + WINDOW])
        return order

    def _record(self, index: int) -> dict[str, Any] | None:
        """The sample itself, or None where it is bad; every bad one is tried and listed once."""
        if index in self._bad:
            return None
        shard = int(np.searchsorted(self._ends, index, side="right"))
        entry = self._indices[shard][index - int(self._ends[shard])]  # counted from the shard's end
        name = f"{self._names[shard]}/{entry['key'].decode('utf-8', 'replace')}"
        try:
            if entry["text_at"] < 0:
                raise ValueError("got no text next to the image")
            text = self._read(shard, entry, "text", MAX_TEXT_BYTES).decode("utf-8").strip()
            if not text:
                raise ValueError("got an empty text")
            image = read_image(self._read(shard, entry, "image", MAX_IMAGE_BYTES))
        except ValueError as error:
            mine = object()
            if self._bad.setdefault(index, mine) is mine:  # of several threads one lists it
                self.report.skip(name, error)
            return None
        self.report.read += 1
        self.report.annotations_read += 1
        return {"image_id": name, "image": image, "segments": None, "segments_info": None, "captions": [text]}

    def _read(self, shard: int, entry: np.void, part: str, most: int) -> bytes:
        at, size = int(entry[f"{part}_at"]), int(entry[f"{part}_size"])
        if size > most:
            raise ValueError(f"got {size} bytes of {part}, expected at most {most}")
        with open(self.paths[shard], "rb") as stream:  # opened each time: 20 us, 1 % of what decoding an image takes
            stream.seek(at)
            content = stream.read(size)
        if len(content) < size:
            raise ValueError(f"got {len(content)} of {size} bytes of {part}: the shard was truncated since it was read")
        return content


def _shard_paths(paths_or_glob: str | Path | Sequence[str | Path]) -> list[Path]:
    """Absolute paths of existing files, each once, in the order given."""
    given = [paths_or_glob] if isinstance(paths_or_glob, str | Path) else list(paths_or_glob)
    paths = [path for pattern in given for path in _expanded(os.path.abspath(Path(pattern).expanduser()))]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = f"no shard at {missing[0]} ({len(missing)} missing)" if missing else f"no shard in {given}"
        raise FileNotFoundError(f"{what}; expected tar files of images and texts, as img2dataset writes them")
    return list(dict.fromkeys(paths))


def _expanded(pattern: str) -> list[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    braces = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if braces:
        first, last, listed = braces.groups()
        numbers = range(int(first or 0), int(last or 0) + 1)
        words = listed.split(",") if listed else [str(number).zfill(len(first)) for number in numbers]
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        return [path for word in words for path in _expanded(before + word + after)]
    if any(letter in pattern for letter in "*?["):
        return [Path(path) for path in sorted(glob.glob(pattern, recursive=True))] or [Path(pattern)]
    return [Path(pattern)]


def _cached_index(path: Path, folder: Path) -> np.ndarray:
    """The shard's index from the cache, or from its headers. Raises ValueError for a shard that cannot be read."""
    stat = path.stat()
    key = hashlib.sha256(f"1 {path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:32]
    cached = folder / f"{key}.npy"
    try:
        return _checked(np.load(cached, allow_pickle=False), stat.st_size)
    except Exception:  # none yet, or damaged in any way: a cache may always be deleted
        entries = _read_headers(path)
    try:
        with replacing(cached) as temporary:
            np.save(temporary, entries, allow_pickle=False)
    except OSError:  # a folder that cannot be written: the next run reads the headers again
        pass
    return entries


def _checked(entries: np.ndarray, length: int) -> np.ndarray:
    """A cached index that fits its shard. Raises ValueError for any other array."""
    names = entries.dtype.names
    if entries.ndim != 1 or names != (*PLACES, "key") or entries.dtype["key"].kind != "S":
        raise ValueError(f"got an array of {entries.dtype}, expected an index of samples")
    for part in ("image", "text"):
        starts, sizes = entries[f"{part}_at"].astype(np.int64), entries[f"{part}_size"].astype(np.int64)
        if np.min([starts, sizes], initial=0) < -1 or np.max(starts + sizes, initial=0) > length:
            raise ValueError(f"got places outside the shard's {length} bytes")
    return entries


def _read_headers(path: Path) -> np.ndarray:
    """Where the shard's images and their texts lie: structured array of PLACES (int64) and key, in the shard's order.

    Raises ValueError for anything but a whole tar file without compression.
    """
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, tuple[int, int]] = {}
    try:
        with open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            length = os.fstat(stream.fileno()).st_size
            for member in archive:
                key, kind = _key_and_kind(member)
                inside = 0 <= member.size <= length - member.offset_data
                if archive.offset <= member.offset or key and not inside:  # going back would never end
                    raise ValueError(f"the member at byte {member.offset} claims {member.size} bytes")
                if kind in (*IMAGE_KINDS, "txt"):
                    (texts if kind == "txt" else images).setdefault(key, (member.offset_data, member.size))
            stream.seek(archive.offset)  # tarfile takes a header that is damaged or cut for the end
            if stream.read(BLOCK) not in (b"", bytes(BLOCK)):
                raise ValueError(f"no header at byte {archive.offset}")
    except Exception as error:  # hostile headers raise TarError, ValueError, MemoryError, RecursionError, ...
        raise ValueError(f"not a whole tar file ({type(error).__name__}: {error})") from None
    rows = [(*image, *texts.get(key, (-1, -1)), os.fsencode(key)) for key, image in images.items()]
    width = max([1, *(len(row[-1]) for row in rows)])
    return np.array(rows, [*((name, np.int64) for name in PLACES), ("key", f"S{width}")])


def _key_and_kind(member: tarfile.TarInfo) -> tuple[str, str]:
    """("folder/000012", "jpg") of "folder/000012.jpg", as webdataset parts names; ("", "") for what does not count."""
    try:
        folder, name = posixpath.split(plain_file_name(member.name))
    except ValueError:
        return "", ""
    stem, _, kind = name.partition(".")
    key = posixpath.join(folder, stem).removeprefix("./")
    plain = member.isreg() and not member.issparse() and stem and len(os.fsencode(key)) <= MAX_KEY_BYTES
    return (key, kind.lower()) if plain else ("", "")
