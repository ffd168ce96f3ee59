"""Records in and out of a folder: `write_split` once, `load_split` ever after.

A split is a folder of Hugging Face `datasets` (any tool can `load_from_disk` it) with a manifest.json of ours: count,
columns, who made it, size and sha256 of every file. The same records give the same bytes, a crash leaves the old folder
or the new one, and loading copies nothing into a cache.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError
from tqdm.auto import tqdm

from ovs_lite.config import ICONWORLD_FORMAT
from ovs_lite.data.schema import COLUMNS, encode_record
from ovs_lite.files import file_digest, write_json
from ovs_lite.locks import exclusive

MANIFEST = "manifest.json"
BATCH_RECORDS = 32
SHARD_BYTES = 500_000_000
ENCODING_THREADS = 4
CURE = (
    "build it with: ovs-lite data build, for sets of the miniature world; ovs-lite data prepare SET, for public ones; "
    "or the mine, refine or pseudo-masks command that writes it"
)
REMEDY = "remove that folder and make it again by the command that wrote it"
_verified: set[tuple] = set()  # files whose sha256 this process compared


def write_split(
    records: Iterable[dict[str, Any]],
    folder: str | Path,
    *,
    creator: dict[str, Any] | None = None,
    columns: str = "segments",
    total: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write records (see `schema.encode_record`) to `folder` and return the manifest. Holds a few dozen in memory.

    creator: JSON facts on where the records come from, kept in the manifest (no dates: same records, same bytes).
    columns: which the records have, a name of `schema.COLUMNS`.
    total: for the progress bar.
    overwrite: replace a folder that exists, once the new one is complete.
    Needs twice the split's space while it works, in a hidden folder that the next call removes after a kill. Raises
    FileExistsError, BlockingIOError where another process writes that folder, or ValueError naming a bad record or
    saying that there is none; then nothing remains.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists; pass overwrite=True to replace it")
    temporary = folder.with_name(f".{folder.name}.new")
    with exclusive(folder.parent, f".{folder.name}.lock"):
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
            temporary.mkdir()
            bar = tqdm(total=total, desc=f"{folder.parent.name} {folder.name}", unit=" records", disable=not progress)
            with bar, _without_other_bars():
                rows = partial(_rows, records, columns, bar)
                dataset = _generated(rows, columns, creator, folder.name, temporary / "cache")
                dataset.save_to_disk(str(temporary / "new"), max_shard_size=SHARD_BYTES)
            manifest = {"count": len(dataset), "columns": dataset.column_names, "creator": creator or {}}
            manifest["files"] = {
                path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
                for path in sorted((temporary / "new").iterdir())
            }
            write_json(temporary / "new" / MANIFEST, manifest)
            _move_into_place(temporary / "new", folder, temporary / "old")
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(folder)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def load_split(folder: str | Path, verify: bool | None = None) -> datasets.Dataset:
    """Memory-map what `write_split` wrote, after comparing every file's size and sha256 with the manifest.

    verify: None reads a file for its sha256 only where this process has not yet (about 1 s per GB), True always, False
        never.
    Raises FileNotFoundError where the folder is missing, ValueError where its files are not those of its manifest, and
    for scenes that another version of IconWorld drew.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        what = "an unfinished or foreign folder" if folder.exists() else "no folder"
        raise FileNotFoundError(f"no data set at {folder} ({what}); {CURE}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            _check_file(folder / name, expected, verify)
        dataset = datasets.Dataset.load_from_disk(str(folder), keep_in_memory=False)
        if len(dataset) != manifest["count"]:
            raise ValueError(f"{len(dataset)} records, {manifest['count']} in the manifest")
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise ValueError(f"{folder} is damaged ({error}); {REMEDY}") from error
    drawn = manifest["creator"].get("source", manifest["creator"]).get("format", ICONWORLD_FORMAT)
    if drawn != ICONWORLD_FORMAT:
        given = f"got scenes of IconWorld's version {drawn} in {folder}"
        raise ValueError(f"{given}, expected version {ICONWORLD_FORMAT}; {REMEDY}")
    return dataset


def first(split: datasets.Dataset, limit: int | None) -> datasets.Dataset:
    """The first `limit` records of a split, none of them decoded; all where it has fewer, or for None."""
    return split if limit is None else split.select(range(min(limit, len(split))))


def iter_encoded(split: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """The records of a split with each image as its encoded bytes: written again, a JPEG stays the JPEG that it is."""
    for record in split.cast_column("image", datasets.Image(decode=False)):
        yield record | {"image": record["image"]["bytes"]}


def read_creator(folder: str | Path) -> dict[str, Any]:
    """The facts on where a split comes from, as `write_split` was given them."""
    return _manifest(folder)["creator"]


def read_count(folder: str | Path) -> int:
    """How many records a split has, as its manifest says; unlike `load_split`, also of one without any."""
    return _manifest(folder)["count"]


def is_made(folder: Path, creator: Mapping[str, Any]) -> bool:
    """Whether a whole split lies in the folder that was written with these facts on where it comes from."""
    return (folder / MANIFEST).exists() and read_creator(folder) == creator


def _manifest(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))


def _rows(records: Iterable[dict[str, Any]], columns: str, bar: tqdm) -> Iterator[dict[str, Any]]:
    """Encoded records, checked; PNG compression runs in threads, because it releases the interpreter lock."""
    source, seen = iter(records), set()
    with ThreadPoolExecutor(ENCODING_THREADS) as pool:
        while batch := list(islice(source, BATCH_RECORDS)):
            for row in pool.map(partial(encode_record, columns=columns), batch):
                if row["image_id"] in seen:
                    raise ValueError(f"got image_id {row['image_id']!r} twice, expected unique ones")
                seen.add(row["image_id"])
                yield row
            bar.update(len(batch))
    if not seen:
        raise ValueError("got no records, expected one or more")


def _generated(rows, columns: str, creator: dict | None, name: str, cache: Path) -> datasets.Dataset:
    """The rows as a data set in `cache`. Errors of the rows come out as they are."""
    fingerprint = hashlib.sha256(json.dumps(creator, sort_keys=True).encode()).hexdigest()[:16]
    split = datasets.NamedSplit(re.sub(r"\W", "_", name))
    options = {"split": split, "fingerprint": fingerprint, "writer_batch_size": BATCH_RECORDS}
    try:
        return datasets.Dataset.from_generator(rows, COLUMNS[columns], cache_dir=str(cache), **options)
    except DatasetGenerationError as error:
        raise error.__cause__ from None


@contextmanager
def _without_other_bars() -> Iterator[None]:
    """Hide the progress bars of `datasets`, which know neither a name nor a total."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _check_file(path: Path, expected: dict, verify: bool | None) -> None:
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    state = path.stat()
    if state.st_size != expected["bytes"]:
        raise ValueError(f"{path.name} has {state.st_size} bytes, {expected['bytes']} in the manifest")
    file = path.resolve(), state.st_size, state.st_mtime_ns, expected["sha256"]
    if verify or verify is None and file not in _verified:
        if file_digest(path) != expected["sha256"]:
            raise ValueError(f"{path.name} differs from its sha256 in the manifest")
        _verified.add(file)


def _move_into_place(new: Path, folder: Path, aside: Path) -> None:
    """Rename; an old folder steps aside first and comes back where the rename fails."""
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
