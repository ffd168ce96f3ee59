"""Where the images and texts of a webdataset shard lie: read from its headers once, then from a cache.

Members are parted as webdataset parts them: the key ends at the first dot of the last part of the name, the rest is the
field. Departures from webdataset: a sample's members may lie anywhere in its shard, the first of two equal fields
counts, a leading "./" is dropped, and of the fields only jpg, jpeg, png, webp and txt are used ("v2.jpg" is another
field).
"""

import hashlib
import json
import os
import posixpath
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovs_lite.data.readers.reader_report import plain_file_name
from ovs_lite.files import replacing

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
FIELDS = (*IMAGE_KINDS, "txt")
PLACES = ("image_at", "image_size", "text_at", "text_size")  # bytes from the shard's start; -1 for no text
MAX_KEY_BYTES = 255
BLOCK = 512


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds.

    samples: structured array, one image each: PLACES (int64) and its key, in the shard's order.
    unused: (member, why) of images and texts that belong to no sample.
    others: kind -> number of the members that are neither, such as json.
    """

    samples: np.ndarray
    unused: list[tuple[str, str]]
    others: dict[str, int]


def shard_index(path: Path, folder: Path) -> ShardIndex:
    """The shard's index from the cache in `folder`, or from its headers. Raises ValueError for what cannot be read."""
    stat = path.stat()
    key = hashlib.sha256(f"2 {path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:32]
    cached = folder / f"{key}.npz"
    try:
        return _load(cached, stat.st_size)
    except Exception:  # none yet, or damaged in any way: a cache may always be deleted
        index = _read_headers(path)
    about = json.dumps([index.unused, index.others]).encode()
    try:
        with replacing(cached) as temporary:
            np.savez(temporary, samples=index.samples, about=np.frombuffer(about, np.uint8))
    except OSError:  # a folder that cannot be written: the next run reads the headers again
        pass
    return index


def _load(cached: Path, length: int) -> ShardIndex:
    """A cached index that fits its shard of `length` bytes. Raises for any other file."""
    with np.load(cached, allow_pickle=False) as stored:
        samples, (unused, others) = stored["samples"], json.loads(stored["about"].tobytes())
    if samples.ndim != 1 or samples.dtype.names != (*PLACES, "key") or samples.dtype["key"].kind != "S":
        raise ValueError(f"got an array of {samples.dtype}, expected an index of samples")
    spans = np.stack([samples[place].astype(np.int64) for place in PLACES])
    if spans.min(initial=0) < -1 or (spans[::2] + spans[1::2]).max(initial=0) > length:
        raise ValueError(f"got places outside the shard's {length} bytes")
    unused = [(str(name), str(why)) for name, why in unused]
    return ShardIndex(samples, unused, {str(kind): int(count) for kind, count in others.items()})


def _read_headers(path: Path) -> ShardIndex:
    """The index of a whole tar file without compression. Raises ValueError for any other."""
    images: dict[str, tuple[int, int, str]] = {}
    texts: dict[str, tuple[int, int, str]] = {}
    unused, others = [], Counter()
    try:
        with open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            length = os.fstat(stream.fileno()).st_size
            for member in archive:
                key, kind, why = _parted(member)
                inside = 0 <= member.size <= length - member.offset_data
                if archive.offset <= member.offset or key and not inside:  # going back would never end
                    raise ValueError(f"the member at byte {member.offset} claims {member.size} bytes")
                group = texts if kind == "txt" else images
                if not why and kind in FIELDS and key in group:
                    why = f"{group[key][-1]} has the same key and counts"
                if why:
                    unused.append((member.name, why))
                elif kind in FIELDS:
                    group[key] = (member.offset_data, member.size, member.name)
                elif not member.isdir():
                    others[kind or "without a suffix"] += 1
            stream.seek(archive.offset)  # tarfile takes a header that is damaged or truncated for the end
            if stream.read(BLOCK) not in (b"", bytes(BLOCK)):
                raise ValueError(f"no header at byte {archive.offset}")
    except Exception as error:  # hostile headers raise TarError, ValueError, MemoryError, RecursionError, ...
        raise ValueError(f"not a whole tar file ({type(error).__name__}: {error})") from None
    unused += [(text[-1], f"no image of key {key!r} in the shard") for key, text in texts.items() if key not in images]
    rows = [(*image[:2], *texts.get(key, (-1, -1))[:2], os.fsencode(key)) for key, image in images.items()]
    width = max([1, *(len(row[-1]) for row in rows)])
    samples = np.array(rows, [*((name, np.int64) for name in PLACES), ("key", f"S{width}")])
    return ShardIndex(samples, unused, dict(others))


def _parted(member: tarfile.TarInfo) -> tuple[str, str, str]:
    """("folder/000012", "jpg", "") of "folder/000012.jpg": key, field, and why it cannot be used; no key, no sample."""
    if member.isdir():
        return "", "", ""
    try:
        folder, name = posixpath.split(plain_file_name(member.name))
    except ValueError as error:
        return "", "", str(error)
    stem, _, field = name.partition(".")
    key, field = posixpath.join(folder, stem).removeprefix("./"), field.lower()
    last = field.rpartition(".")[2]
    if not member.isreg() or member.issparse():
        return "", field, "a link, a device or a sparse file, expected a regular file"
    if last not in FIELDS:
        return (key if stem else ""), last, ""
    if not stem:
        return "", field, "the name begins with a dot, so it has no key"
    if len(os.fsencode(key)) > MAX_KEY_BYTES:
        return "", field, f"a key of {len(os.fsencode(key))} bytes, expected at most {MAX_KEY_BYTES}"
    if field != last:
        why = f"the key ends at the first dot, {key!r}, which leaves field {field!r}"
        return key, field, f"{why}; expected one of {', '.join(FIELDS)}: rename it"
    return key, field, ""
