"""Any method on any prepared set, under any protocol, by one process or many, resumed where it was stopped.

`evaluate_set` is `evaluate_segmentation` in blocks; `evaluate_in_blocks` is what a `Counter` of regions, proposals,
prompts or panoptic segments counts, in blocks.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from ovs_lite.data.vocabulary import Vocabulary
from ovs_lite.distributed import barrier, group_device
from ovs_lite.evaluation.blocks import BLOCK, CountFolder, Counts, count_in_blocks
from ovs_lite.evaluation.protocol_card import protocol_card
from ovs_lite.evaluation.segmentation import segmentation_counter
from ovs_lite.evaluation.segmentation_report import SegmentationReport
from ovs_lite.files import file_digest
from ovs_lite.methods import Method

PACKAGE = Path(__file__).parents[1]


class Counter(Protocol):
    """Counts images by themselves: `GridCounter`, `ProposalCounter`, `PromptCounter`, `PanopticCounter`."""

    def count(self, records: Any) -> tuple[list[str], Counts]:
        """Names of N images and their counts, see `ovs_lite.evaluation.blocks`."""
        ...

    def report(self, image_ids: Sequence[str], counts: Counts) -> Any:
        """What was counted of N images as a report."""
        ...


def evaluate_in_blocks(
    counter: Counter,
    records: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path | None = None,
    key: str = "",
    block: int = BLOCK,
    name: str = "",
    fresh: bool = False,
) -> Any:
    """The counter's report of all records, resumable, on all processes of the group.

    key: says what is counted and how (`counts_key`); needed where counts are kept, in `folder`/KEY.
    The others, and what is promised: as `evaluate_set`.
    """
    ids, kept = _opened(folder, key, records, fresh)
    found = count_in_blocks(
        lambda some: counter.count(some)[1], records, kept, block=block, name=name, device=group_device()
    )
    return counter.report(ids, found)


def evaluate_set(
    method: Method,
    records: Sequence[Mapping[str, Any]],
    vocabulary: Vocabulary,
    *,
    folder: str | Path | None = None,
    data: str = "",
    block: int = BLOCK,
    seed: int = 0,
    name: str = "",
    fresh: bool = False,
    **how: Any,
) -> SegmentationReport:
    """`evaluate_segmentation` with a protocol card in the report, resumable, on all processes of the group.

    records: a prepared split, or any sequence of records; each is read by one process.
    folder: where counts are kept while it works, in a folder of their own for each card (`counts_of`); a second call
        takes what a killed one left. None: nothing is kept.
    data: digest of the records (`split_digest`), which belongs to the card. Needed where counts are kept.
    block: images between two writes. seed: of random numbers that the method may draw. fresh: count everything again.
    name: of the progress bar, "" for none. how: as `segmentation_counter`. Errors as `evaluate_segmentation`, and
        ValueError for a folder without `data`.
    Every process gets the same report. Bits depend on neither the number of processes nor on what was resumed, for the
    same `block`, `batch` and number of threads.
    """
    if folder is not None and not data:
        raise ValueError(f"got folder={str(folder)!r} without data, expected the digest of the records to count")
    counter = segmentation_counter(method, vocabulary, **how)
    card = protocol_card(counter, seed=seed, data=data)

    def count(some) -> Counts:
        _, counts, ignored = counter.count(some)
        return {"counts": counts, "ignored": ignored}

    ids, kept = _opened(folder, card.hash, records, fresh)
    settings = {"block": block, "seed": seed, "name": name, "device": method.clip.device}
    found = count_in_blocks(count, records, kept, **settings)
    return replace(counter.report(ids, **found), card=card)


def counts_key(*about: Any) -> str:
    """A short name for all that decides counts: JSON facts, such as digests of weights and of data (`split_digest`)."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def _opened(
    folder: str | Path | None, key: str, records: Sequence[Mapping[str, Any]], fresh: bool
) -> tuple[list[str], CountFolder | None]:
    """The names of all images, and where their counts are kept, which is emptied for a fresh start."""
    if folder is not None and not key:
        raise ValueError(f"got folder={str(folder)!r} without key, expected what names the weights and the records")
    ids = image_ids(records)
    kept = None if folder is None else counts_of(folder, key, ids)
    if kept and fresh:
        kept.remove()
        barrier()
    return ids, kept


def counts_of(folder: str | Path, key: str, ids: Sequence[str] = ()) -> CountFolder:
    """Where counts of that key lie below a run's folder. What another version of the package counted is not taken."""
    return CountFolder(Path(folder) / key, f"{key} {package_digest()}", tuple(ids))


def image_ids(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all images, without decoding one where the records are a prepared split."""
    if hasattr(records, "column_names"):
        return list(records["image_id"])
    return [record["image_id"] for record in records]


def split_digest(folder: str | Path) -> str:
    """Names a prepared split by its manifest, which holds the digests of its files."""
    return file_digest(Path(folder) / "manifest.json")[:12]


@cache
def package_digest() -> str:
    """Names the package's own code and data files, but for weights, which a card names."""
    paths = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".json", ".yaml"))
    content = "\n".join(f"{path.relative_to(PACKAGE).as_posix()} {file_digest(path)}" for path in paths)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
