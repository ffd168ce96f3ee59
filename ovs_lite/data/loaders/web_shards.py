"""Image-text pairs in webdataset tar shards, as img2dataset writes them: KEY.jpg, KEY.txt and perhaps KEY.json.

A shard's headers are read once and cached; after that a pair is two reads at known places. Nothing is ever extracted.

Why not the reader of `datasets`. On the same four shards of 250 JPEGs of 256 pixels (`python
tests/benchmarks/bench_shards.py`, two runs on a machine busy with other work) its stream gave 0.89 and 1.04 times our
1700 to 2000 pairs per second of processor time, its map-style table 0.82 and 1.24 times: decoding is what costs. A
stream that resumed lost 167 of 1000 pairs, those in its shuffle buffer, and two processes' batches were not one's. The
table resumes exactly, but is a second copy of the data (16.8 of 19.5 MiB; this index: less than 0.1). In both a single
damaged picture ended the epoch, where this reader lists it and goes on; a shard that is cut went unnoticed.
"""

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ovs_lite.data.caption_text import clean_caption
from ovs_lite.data.images import read_image
from ovs_lite.data.loaders.shard_index import shard_index
from ovs_lite.data.loaders.shard_names import shard_paths
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.distributed import is_main
from ovs_lite.files import cache_root

MAX_IMAGE_BYTES, MAX_TEXT_BYTES = 50_000_000, 100_000
MAX_BAD_RUN = 100
MAX_LISTED = 1000  # unused members, a shard
WINDOW = 40_000  # samples; the shuffle buffer of TCL's release


class WebShards(Sequence):
    """index -> record {image_id, image (PIL RGB, upright), segments None, segments_info None, captions [text]}.

    paths_or_glob: a path, a pattern with * or with braces ("cc3m-{00000..00331}.tar", "{a,b}.tar"), a union "a::b", or
        a list of these: see `shard_paths`.
    cache: folder of the shards' indices, default `cache_root()`/webshards; safe to delete.
    image_id is the shard's path below the folder that all shards share, and the key: "cc3m/00000/000000012".

    Only regular files with plain relative names count, keys end at the first dot: see `shard_index`. An image or text
    that belongs to no sample is listed in `report` with the reason and counted in `unused`; other members (json) are
    counted there by kind. A sample that cannot be used (no text, damaged, more than 50 MB or 50 million pixels) is
    listed by the process that met it, and the next good one stands in for it. A shard that is truncated or no tar file
    is listed, counted in `bad_shards`, and left out. Threads may share it.
    Raises FileNotFoundError for a shard or pattern without files, ValueError where no shard holds a pair, and where 100
    samples in a row are bad.
    """

    def __init__(self, paths_or_glob: str | Path | Sequence[str | Path], cache: str | Path | None = None):
        given = [paths_or_glob] if isinstance(paths_or_glob, str | Path) else list(paths_or_glob)
        paths = shard_paths(given)
        folder = cache_root() / "webshards" if cache is None else Path(cache)
        self.report = ReaderReport()
        self.paths: list[Path] = []
        self._indices: list[np.ndarray] = []
        self._names: list[str] = []
        self.bad_shards = self.unused = 0
        common = os.path.commonpath([path.parent for path in paths])
        for path in tqdm(paths, desc="shards", unit=" shards", disable=not is_main()):
            try:
                index = shard_index(path, folder)
            except ValueError as error:
                self.report.skip(path, error)
                self.bad_shards += 1
                continue
            self.paths.append(path)
            self._indices.append(index.samples)
            self._names.append(path.relative_to(common).with_suffix("").as_posix())
            self.unused += len(index.unused)
            self.report.unused.update(index.others)
            for member, why in index.unused[:MAX_LISTED]:
                self.report.skip(f"{self._names[-1]}/{member}", why)
            if len(index.unused) > MAX_LISTED:
                self.report.skip(path, f"{len(index.unused) - MAX_LISTED} more members that belong to no sample")
        self._ends = np.cumsum([len(samples) for samples in self._indices], dtype=np.int64)
        self._bad: dict[int, object] = {}
        self._check_pairs(len(paths))

    def _check_pairs(self, given: int) -> None:
        with_text = [int((samples["text_at"] >= 0).sum()) for samples in self._indices]
        if not sum(with_text):
            for path, samples in zip(self.paths, self._indices, strict=True):
                self.report.skip(path, f"{len(samples)} images, none with a text of its key next to it")
            wanted = "expected KEY.jpg (or jpeg, png, webp) next to KEY.txt"
            found = f"got {given} shards without one pair that can be read, {wanted}"
            raise ValueError(f"{found}\n{self.report.summary()}")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"got sample {index}, expected one of {len(self)}")
        most = min(MAX_BAD_RUN, len(self))
        for step in range(most):
            record = self._record((index + step) % len(self))
            if record is not None:
                return record
        raise ValueError(f"{most} bad samples in a row from {index}; look at the shard\n{self.report.summary()}")

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """A permutation of all samples, (len,) int64, that reads nearly in sequence: shards in random order, and
        samples shuffled inside windows of 40,000 of that order."""
        rng = np.random.default_rng((seed, epoch, len(self)))
        starts = self._ends - [len(samples) for samples in self._indices]
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
            text = clean_caption(self._read(shard, entry, "text", MAX_TEXT_BYTES).decode("utf-8"))
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
