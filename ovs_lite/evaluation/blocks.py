"""A prepared set counted in blocks of images: by one process or many, resumed after a kill, the same bits every time.

What is counted of a block depends on its images alone: batches never cross its border, and random numbers start again
in each. So neither the number of processes nor where a run was stopped can change a count. N images; counts are arrays
whose first axis is the image, or, next to an array "NAME per image" of N numbers, as many rows of NAME for each image.
"""

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ovs_lite import distributed
from ovs_lite.tensors import read_tensors, write_tensors

BLOCK = 64  # images between two writes
PER_IMAGE = " per image"  # ends the name of the array that says how many rows of another one belong to each image
Counts = dict[str, np.ndarray]
Count = Callable[[Iterable[Mapping[str, Any]]], Counts]


@dataclass(frozen=True)
class CountFolder:
    """Where the counts of finished blocks are kept while an evaluation runs: one small file per block.

    folder: on a file system that all processes see, or on one of each. key: says what was counted and how. ids: names
        of all images. Blocks of another key or of other images, and damaged ones, are counted again.
    """

    folder: Path
    key: str
    ids: tuple[str, ...]

    def read(self, start: int, stop: int) -> Counts | None:
        """The counts of the images start..stop-1, or None."""
        with suppress(FileNotFoundError, ValueError):
            tensors, about = read_tensors(self._path(start, stop))
            if about.get("key") == self._key(start, stop):
                return {name: tensor.numpy() for name, tensor in tensors.items()}
        return None

    def write(self, start: int, stop: int, counts: Counts) -> None:
        """Keep the counts of a block, atomically."""
        tensors = {name: torch.from_numpy(array) for name, array in counts.items()}
        write_tensors(self._path(start, stop), tensors, {"key": self._key(start, stop)})

    def remove(self) -> None:
        """Remove all blocks, and the folders above them that are empty then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # something else is there
            self.folder.parent.rmdir()

    def _key(self, start: int, stop: int) -> str:
        named = "\n".join(self.ids[start:stop])
        return f"{self.key} {hashlib.sha256(named.encode()).hexdigest()}"

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"images-{start:07d}-{stop:07d}.safetensors"


def count_in_blocks(
    count: Count,
    records: Sequence[Mapping[str, Any]],
    kept: CountFolder | None = None,
    *,
    block: int = BLOCK,
    seed: int = 0,
    name: str = "",
    device: torch.device | str = "cpu",
) -> Counts:
    """Count all records; every process of a group gets the counts of all, in the order of the records.

    count: records -> counts, whose names, types and further axes do not depend on the records (of none: 0 rows).
    records: read one by one, each by one process only. kept: where finished blocks are kept, and taken from.
    block: images of one. seed: of random numbers. name: of the progress bar, "" for none, which the main process shows
    for its own share. device: where the group can gather. Where blocks are kept, SIGTERM in any process lets all of
    them end their block and keep it, then SystemExit(0) ends them; before the first block where it came earlier.
    """
    if block < 1:
        raise ValueError(f"got block={block}, expected at least 1")
    spans = [(start, min(start + block, len(records))) for start in range(0, len(records), block)]
    mine = distributed.shard(spans)
    found = {span: kept.read(*span) for span in mine} if kept else dict.fromkeys(mine)
    done = sum(stop - start for (start, stop), counts in found.items() if counts is not None)
    total = sum(stop - start for start, stop in mine)
    title = name if distributed.world_size() == 1 else f"{name} (1 of {distributed.world_size()} processes)"
    shown = name and distributed.is_main()
    todo = [span for span, counts in found.items() if counts is None]
    most = distributed.largest(len(todo), torch.device(device))
    with (
        tqdm(total=total, initial=done, desc=title, unit=" images", disable=not shown) as bar,
        distributed.Interrupts(*[signal.SIGTERM] * (kept is not None)) as interrupts,
    ):
        for place in range(most):  # in step with the others, so that a signal to one process stops all of them
            _end_if_asked(interrupts, device)
            for span in todo[place : place + 1]:
                found[span] = _counted(count, records, span, seed, bar)
                if kept:
                    kept.write(*span, found[span])
        _end_if_asked(interrupts, device)
    return _together(count([]), found, device)


def _end_if_asked(interrupts: distributed.Interrupts, device: torch.device | str) -> None:
    """End all processes where a signal came to one of them."""
    if distributed.any_process(interrupts.number != 0, torch.device(device)):
        interrupts.end("stopped by a signal; the same command resumes from the images that are counted")


def _counted(count: Count, records: Sequence[Mapping[str, Any]], span: tuple[int, int], seed: int, bar: tqdm) -> Counts:
    def read() -> Iterator[Mapping[str, Any]]:
        for index in range(*span):
            yield records[index]
            bar.update()

    with torch.random.fork_rng():
        torch.manual_seed(seed + span[0])
        return count(read())


def _together(empty: Counts, found: Mapping[tuple[int, int], Counts], device: torch.device | str) -> Counts:
    """The counts of all blocks of all processes, by position of the image."""
    indices = np.concatenate([np.zeros(0, np.int64), *(np.arange(*span) for span in found)])
    mine = {name: np.concatenate([none, *(one[name] for one in found.values())]) for name, none in empty.items()}
    whole = {}
    for name, rows in mine.items():
        of = np.repeat(indices, mine[name + PER_IMAGE]) if name + PER_IMAGE in mine else indices
        order = np.argsort(_gathered(of, device), kind="stable")
        whole[name] = _gathered(rows, device)[order]
    return whole


def _gathered(rows: np.ndarray, device: torch.device | str) -> np.ndarray:
    return distributed.gather_rows(torch.from_numpy(rows), torch.device(device)).numpy()
