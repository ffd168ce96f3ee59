"""Records in and out of a folder: `write_split` once, `load_split` ever after.

A split is a folder that Hugging Face `datasets` memory-maps: Arrow shards, its two JSON files, and a manifest.json of
ours (count, columns, who made it, size and sha256 of every file). The same records give the same bytes, a crash leaves
nothing behind, and loading copies nothing into a cache. The names of `images`, `schema`, `segments` and `report` that
go with records can be imported from here.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from tqdm.auto import tqdm

from ovs_lite.data.images import read_image
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.schema import FEATURES, FEATURES_MASKS, RECORD_COLUMNS, encode_record
from ovs_lite.data.segments import decode_segments, describe_segment, encode_segments, semantic_map

__all__ = [
    "FEATURES", "FEATURES_MASKS", "RECORD_COLUMNS", "ReaderReport", "decode_segments", "describe_segment",
    "encode_record", "encode_segments", "load_split", "read_image", "semantic_map", "write_split",
]  # fmt: skip

MANIFEST = "manifest.json"
BATCH_RECORDS = 32
SHARD_BYTES = 500_000_000
ENCODING_THREADS = 4


def write_split(
    records: Iterable[dict[str, Any]],
    folder: str | Path,
    *,
    creator: dict[str, Any] | None = None,
    masks: bool = False,
    total: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write records (see `schema.encode_record`) to `folder` and return the manifest. Holds a few dozen in memory.

    creator: JSON facts on where the records come from, kept in the manifest (no dates: same records, same bytes).
    masks: records have the `masks` column. total: for the progress bar. overwrite: replace a folder that exists, once
    the new one is complete. Raises FileExistsError, or ValueError naming a bad record; then nothing remains.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists; pass overwrite=True to replace it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        name = f"{folder.parent.name} {folder.name}"
        with tqdm(total=total, desc=name, unit=" records", disable=not progress) as bar:
            count, shards = _write_shards(records, temporary, FEATURES_MASKS if masks else FEATURES, bar)
        manifest = _write_descriptions(temporary, count, shards, masks, creator)
        temporary.chmod(0o755)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def load_split(folder: str | Path, verify: bool = False) -> datasets.Dataset:
    """Memory-map what `write_split` wrote. verify: also compare every file's sha256 (reads everything once).

    Raises FileNotFoundError where the folder is missing, ValueError where its files are not those of its manifest.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        what = "an unfinished or foreign folder" if folder.exists() else "no folder"
        raise FileNotFoundError(f"no data set at {folder} ({what}); build it with: ovs-lite data build")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        problems = [problem for name in manifest["files"] for problem in _damage(folder, manifest, name, verify)]
        dataset = None if problems else datasets.Dataset.load_from_disk(str(folder), keep_in_memory=False)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ValueError(f"{folder} is damaged ({error}); build it again with: ovs-lite data build") from error
    if dataset is None or len(dataset) != manifest["count"]:
        reason = "; ".join(problems) or f"{len(dataset)} records, {manifest['count']} in the manifest"
        raise ValueError(f"{folder} is damaged ({reason}); build it again with: ovs-lite data build")
    return dataset


def _batches(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(records)
    while batch := list(islice(source, BATCH_RECORDS)):
        yield batch


def _write_shards(records: Iterable[dict], folder: Path, features: datasets.Features, bar: tqdm) -> tuple[int, int]:
    """Write data-00000.arrow, ... and return the numbers of records and of shards (at least one, maybe empty)."""
    seen: set[str] = set()
    shards, writer = 0, None
    with ThreadPoolExecutor(ENCODING_THREADS) as pool:  # PNG compression lets go of the interpreter lock
        try:
            for batch in _batches(records):
                if writer is None:
                    writer, shards, written = _open_shard(folder, shards, features), shards + 1, 0
                rows = list(pool.map(lambda record: encode_record(record, "masks" in features), batch))
                _check_new(rows, seen)
                table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
                writer.write_table(table)
                written += table.nbytes
                bar.update(len(rows))
                if written > SHARD_BYTES:
                    writer.close()
                    writer = None
        finally:
            if writer is not None:
                writer.close()
    if shards == 0:
        _open_shard(folder, 0, features).close()
    return len(seen), max(1, shards)


def _open_shard(folder: Path, number: int, features: datasets.Features) -> pa.ipc.RecordBatchStreamWriter:
    return pa.ipc.new_stream(str(folder / f"data-{number:05d}.arrow"), features.arrow_schema)


def _check_new(rows: list[dict], seen: set[str]) -> None:
    for row in rows:
        if row["image_id"] in seen:
            raise ValueError(f"got image_id {row['image_id']!r} twice, expected unique ones")
        seen.add(row["image_id"])


def _write_descriptions(folder: Path, count: int, shards: int, masks: bool, creator: dict | None) -> dict[str, Any]:
    """state.json and dataset_info.json for `datasets`, manifest.json for us. The fingerprint follows the content."""
    features = FEATURES_MASKS if masks else FEATURES
    names = [f"data-{number:05d}.arrow" for number in range(shards)]
    digests = {name: _sha256(folder / name) for name in names}
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    _write_json(folder / "state.json", state)
    _write_json(folder / "dataset_info.json", {"description": "", "features": features.to_dict()})
    names += ["state.json", "dataset_info.json"]
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}
    manifest = {"count": count, "columns": list(features), "creator": creator or {}, "files": files}
    _write_json(folder / MANIFEST, manifest)
    return manifest


def _damage(folder: Path, manifest: dict, name: str, verify: bool) -> list[str]:
    path, expected = folder / name, manifest["files"][name]
    if not path.is_file():
        return [f"{name} is missing"]
    if path.stat().st_size != expected["bytes"]:
        return [f"{name} has {path.stat().st_size} bytes, {expected['bytes']} in the manifest"]
    if verify and _sha256(path) != expected["sha256"]:
        return [f"{name} differs from its sha256 in the manifest"]
    return []


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Rename; an old folder steps aside first and comes back where the rename fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-old-"))
    try:
        folder.rename(aside / folder.name)
        try:
            temporary.rename(folder)
        except OSError:
            (aside / folder.name).rename(folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
