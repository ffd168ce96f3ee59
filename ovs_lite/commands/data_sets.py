"""What `ovs-lite data list | plan | get | prepare | verify` say of the public data sets in the catalogue."""

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ovs_lite.data.acquire import (
    HERE,
    MISSING,
    Amount,
    Step,
    acquire,
    acquire_links,
    state_of,
    to_download,
    to_unpack,
    total_of,
)
from ovs_lite.data.catalogue import Catalogue, DataSet, load_catalogue, prepared_folder
from ovs_lite.data.prepare import SHARDS, prepare
from ovs_lite.data.record import MANIFEST, load_split, read_count, read_creator
from ovs_lite.distributed import Interrupts
from ovs_lite.files import data_root, existing_folder

# Images per second of CPU time, by reader, measured on the 80 images of a small copy of COCO (0.3 megapixels) and, for
# masks, on 12 images of 3.4 megapixels with 100 masks each. Of shards only headers are read, which nobody has timed.
PREPARED_PER_SECOND = {
    "instances": 55, "panoptic": 50, "label_maps": 40, "narratives": 160, "masks": 14,
}  # fmt: skip
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def describe_sets() -> list[str]:
    """One line per public set: name, size, whether it is prepared, whether it needs a login, licence."""
    catalogue = load_catalogue()
    return [
        f"{one.name:21} {_size(total_of(catalogue.files_of(one))):>20}  {_state(one):12}  "
        f"{'login' if one.login else '':5}  {one.licence}"
        for one in catalogue.sets.values()
    ]


def plan(names: Sequence[str], rate: float = 10.0) -> Iterator[str]:
    """Lines on what sets take: what is missing, disk, time, pairs that are still there; last the sum of all.

    rate: of the network, MB/s. Raises ValueError for unknown names.
    """
    if rate <= 0:
        raise ValueError(f"got a rate of {rate} MB/s, expected more than 0")
    catalogue = load_catalogue()
    sets = [catalogue.find(name) for name in names or catalogue.sets]
    for one in sets:
        yield from _plan_one(catalogue, one, rate)
    files = [file for one in sets for file in catalogue.files_of(one)]
    unprepared = [_prepared(catalogue, one) for one in sets if _state(one) != "prepared"]
    needed = to_download(files).known + to_unpack(files).known + sum(unprepared)
    if unprepared:
        needed += max(unprepared)  # a split is written next to its old self
    free = shutil.disk_usage(existing_folder(data_root())).free
    unknown = to_download(files).unknown + to_unpack(files).unknown
    verdict = "NOT ENOUGH" if free <= needed else "not known whether that is enough" if unknown else "enough"
    yield f"together: {readable(needed)} where sizes are known, {readable(free)} free in {data_root()}: {verdict}"


def _plan_one(catalogue: Catalogue, one: DataSet, rate: float) -> Iterator[str]:
    files = catalogue.files_of(one)
    yield f"{one.name}: {one.title}"
    yield f"  licence   {one.licence}{'; needs a login' if one.login else ''}; {one.page}"
    yield f"  needed by {', '.join(one.needed_by)}"
    for file in files:
        if (state := state_of(file)) != HERE:
            size = "size not known" if file.bytes is None else readable(file.bytes)
            way = "to download" if file.url and state == MISSING else "to unpack" if state != MISSING else "from you"
            yield f"  missing   {file.file_name} ({size}, {way})"
    come, prepared = to_download(files), _prepared(catalogue, one)
    download = "an unknown time" if come.unknown and not come.known else duration(come.known / (rate * 1e6))
    download += " and more" if come.unknown and come.known else ""
    disk = f"{_size(come)} to download, about {_size(to_unpack(files))} to unpack"
    yield f"  disk      {disk}, {f'at most {readable(prepared)}' if prepared else 'unknown'} prepared"
    count = sum(split["count"] or 0 for split in one.splits.values()) or (one.survivors or {}).get("published", 0)
    speed = PREPARED_PER_SECOND.get(one.reader)
    work = duration(count / speed) if count and speed else "an unknown time"
    yield f"  time      {download} to download at {rate:g} MB/s, {work} to prepare {count or 'its'} images"
    if one.survivors:
        yield f"  pairs     {_survivors(one)}"
    if one.notes:
        yield f"  note      {one.notes}"
    yield f"  state     {_state(one)}"


def _survivors(one: DataSet) -> str:
    links, fraction = one.survivors["of"], one.survivors["fraction"]
    left = f"about {round(links * fraction)} of {links} links ({fraction:.0%})" if fraction else f"of {links} links"
    return f"{left}: {one.survivors['note']}"


def get(
    names: Sequence[str], links: Path | None = None, limit: int | None = None, discard: bool = False
) -> Iterator[Step]:
    """Bring sets, or the files that `links` lists of one; see `acquire`. Raises ValueError for unknown names, and for
    what would be ignored: a limit without links, archives to discard of links, which stay as they are."""
    catalogue = load_catalogue()
    sets = [catalogue.find(name) for name in names]
    if links is not None and len(sets) != 1:
        raise ValueError(f"got --links for {len(sets)} sets, expected one")
    if links is None and limit is not None:
        raise ValueError(f"got --limit {limit} without --links; a set is downloaded whole, `prepare` takes a limit")
    if links is not None and (discard or (limit is not None and limit < 1)):
        raise ValueError(f"got --links with --discard={discard}, --limit {limit}, expected no --discard, and 1 or more")
    for one in sets:
        yield from acquire_links(catalogue, one, links, limit) if links else acquire(catalogue, one, discard)


def prepare_set(
    name: str,
    root: Path | None,
    splits: Sequence[str] = (),
    limit: int | None = None,
    subset: bool = False,
    fresh: bool = False,
    max_skipped: float = 0.01,
    share: Any = None,
) -> Iterator[str]:
    """Prepare a set, see `prepare`; a line on each split, and on what was skipped. Raises ValueError for its name."""
    one = load_catalogue().find(name)
    # also while a split's files are hashed and moved; indices of shards are kept one by one, so there it may kill
    with nullcontext() if one.reader == "shards" else Interrupts(signal.SIGTERM):
        for done in prepare(one, root, splits, limit, subset, fresh, max_skipped=max_skipped, share=share):
            counted = f"{done.count} {'pairs' if one.reader == 'shards' else 'records'}" + ", there already" * done.kept
            first, *others = done.report.splitlines() or [""]
            if share and not done.count:  # not all of it: what a job made is said instead
                yield f"{done.folder}: {first}"
            else:
                yield from filter(None, (f"{done.folder}: {counted}", first))
            yield from others


def verify_sets(words: Sequence[Path]) -> tuple[Iterator[tuple[Path, str, str]], list[Path]]:
    """(what `verify_set` says of the words that name a public set and no folder, the other words)."""
    catalogue = load_catalogue()
    names = [str(word) for word in words if str(word) in catalogue.sets and not word.exists()]
    found = (found for name in names for found in verify_set(catalogue.find(name)))
    return found, [word for word in words if str(word) not in names]


def verify_set(one: DataSet) -> Iterator[tuple[Path, str, str]]:
    """Each prepared split: its folder, what is wrong with it ("" where nothing is), and its counts."""
    found = [split for split in one.splits if _is_there(prepared_folder(one, split))]
    if not found:
        raise FileNotFoundError(f"{one.name} is not prepared; see: ovs-lite data prepare {one.name} --help")
    for split in found:
        folder = prepared_folder(one, split)
        shards = (folder / SHARDS).exists()
        yield folder, *(_verify_shards(one, folder) if shards else _verify_split(one, split, folder))


def _verify_split(one: DataSet, split: str, folder: Path) -> tuple[str, str]:
    try:
        load_split(folder, verify=True)
    except (OSError, ValueError) as error:
        return " ".join(str(error).split()), ""
    creator, count, expected = read_creator(folder), read_count(folder), one.splits[split]["count"]
    if creator.get("limit") or creator.get("subset"):
        return "", f"{count} records, a part"
    if expected is not None and count != expected:
        return f"{folder} has {count} records, expected {expected}: files were missing or bad when it was prepared", ""
    return "", f"{count} records" + ("" if expected is None else ", all that there are")


def _verify_shards(one: DataSet, folder: Path) -> tuple[str, str]:
    content = json.loads((folder / SHARDS).read_text(encoding="utf-8"))
    root = Path(content["folder"])
    changed = [
        name for name, size in content["files"] if not (root / name).is_file() or (root / name).stat().st_size != size
    ]
    if changed:
        return (
            f"{folder}: {len(changed)} shards are missing or changed, such as {root / changed[0]}; prepare it again",
            "",
        )
    links = one.survivors.get("of")
    share = f" ({content['pairs'] / links:.1%} of {links} links)" if links else ""
    return "", f"{content['pairs']} pairs{share} in {content['shards']} shards, list {content['digest'][:12]}"


def _state(one: DataSet) -> str:
    there = [split for split in one.splits if _is_there(prepared_folder(one, split))]
    return "prepared" if len(there) == len(one.splits) else " ".join(there) or "not prepared"


def _is_there(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or (folder / SHARDS).exists()


def _prepared(catalogue: Catalogue, one: DataSet) -> int:
    """Bytes that prepared splits take: about what the files have, for images stay as they are encoded; shards none."""
    return 0 if one.reader == "shards" else total_of(catalogue.files_of(one)).known


def _size(amount: Amount) -> str:
    if not amount.unknown:
        return readable(amount.known)
    return f"{readable(amount.known)} + unknown" if amount.known else "unknown"


def readable(size: float) -> str:
    """A number of bytes with a unit: 19.3 GB."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.3g} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds in words: 2 h 5 min."""
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min" if seconds else "0 min"
    )
