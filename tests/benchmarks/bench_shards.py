"""Image-text pairs out of webdataset shards: our reader and those of `datasets`, on the same shards in the same run.

    python tests/benchmarks/bench_shards.py [--shards 4] [--pairs 250] [--side 256]

Makes its shards (JPEG pictures of noise blown up, a text, a JSON) in a temporary folder. Every reader runs in a process
of its own, with one thread, and decodes every picture to RGB; the operating system has all shards in memory.

first s: until the first pair, everything that is built once included. again s: the same in a second process, which
finds what the first one built. pairs/s: of an epoch in a shuffled order, without its start; the best of three epochs.
All three are processor time, which other work on the machine changes little. disk: what a reader leaves there, beyond
the shards. memory: growth at the peak, from before the reader is made. resume: stopped after a third of the epoch and
started again in a new reader: pairs that the epoch then lost, and pairs that came twice. two = one: batches of two
processes that, put together, hold the pairs of one process's batch. damage: what a reader makes of the same shards, one
picture of which is cut, and of another set, the last shard of which is.
"""

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from peak_memory import MIB, in_a_process, resident, start_counting
from PIL import Image

SEED, BUFFER, BATCH, EPOCHS = 3, 200, 20, 3
READERS = ("WebShards", "datasets, streaming", "datasets, map-style")


def make_shards(folder: Path, shards: int, pairs: int, side: int) -> None:
    """Shards as img2dataset writes them."""
    from kit.shards import member, write_shard

    rng = np.random.default_rng(0)
    for shard in range(shards):
        members = []
        for pair in range(pairs):
            key, stream = f"{shard:05d}{pair:04d}", io.BytesIO()
            noise = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
            noise.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
            parts = {"jpg": stream.getvalue(), "txt": f"picture {key}".encode(), "json": b'{"width": 256}'}
            members += [member(f"{key}.{kind}", content) for kind, content in parts.items()]
        write_shard(folder / f"{shard:05d}.tar", members)


def ours(folder: Path, cache: Path, skip: int, rank: int, count: int, epoch: int) -> Iterator[tuple[str, object]]:
    """(key, picture) in the order of an epoch, `skip` pairs of this process left out."""
    from ovs_lite.data.loaders.web_shards import WebShards

    shards = WebShards(folder / "*.tar", cache)
    for index in shards.order(SEED, epoch)[rank::count][skip:]:
        record = shards[index]
        yield record["image_id"].rpartition("/")[2], record["image"]


def mapped(folder: Path, cache: Path, skip: int, rank: int, count: int, epoch: int) -> Iterator[tuple[str, object]]:
    """The same, from the Arrow copy that `datasets` makes."""
    import datasets

    files = sorted(map(str, folder.glob("*.tar")))
    data = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(cache))
    order = np.random.default_rng((SEED, epoch)).permutation(len(data))
    for index in order[rank::count][skip:]:
        record = data[int(index)]
        yield record["__key__"], record["jpg"].convert("RGB")


def streamed(folder: Path, cache: Path, skip: int, rank: int, count: int, epoch: int) -> Iterator[tuple[str, object]]:
    """The same, streamed with a shuffle buffer. skip: a new stream resumes from the state after so many pairs."""
    for record in resumed(folder, skip, rank, count, epoch):
        yield record["__key__"], record["jpg"].convert("RGB")


def resumed(folder: Path, skip: int, rank: int, count: int, epoch: int) -> Iterator[dict]:
    """The pairs behind the first `skip` of a stream, from its `state_dict`, as after a restart."""
    import datasets
    from datasets.distributed import split_dataset_by_node

    def stream():
        files = sorted(map(str, folder.glob("*.tar")))
        data = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
        data = data.shuffle(seed=SEED, buffer_size=BUFFER)
        data.set_epoch(epoch)
        return split_dataset_by_node(data, rank, count)

    data = stream()
    if skip:
        for number, _ in enumerate(data, 1):
            if number == skip:
                break
        state, data = data.state_dict(), stream()
        data.load_state_dict(state)
    return iter(data)


MAKE = dict(zip(READERS, (ours, streamed, mapped), strict=True))


def keys(reader: str, folder: Path, cache: Path, skip: int = 0, rank: int = 0, count: int = 1) -> list[str]:
    """The keys of an epoch."""
    return [key for key, _ in MAKE[reader](folder, cache, skip, rank, count, 0)]


def measure(reader: str, folder: Path, cache: Path) -> dict[str, object]:
    """Times and memory of a reader, in this process."""
    import datasets  # noqa: F401 (all readers are measured with it loaded)

    import ovs_lite.data.loaders.web_shards  # noqa: F401

    before, begun = start_counting(), time.process_time()
    pairs = MAKE[reader](folder, cache, 0, 0, 1, 0)
    next(pairs)
    first, speeds = time.process_time() - begun, []
    for epoch in range(EPOCHS):
        pairs = MAKE[reader](folder, cache, 0, 0, 1, epoch)
        next(pairs)
        begun = time.process_time()
        number = sum(1 for _ in pairs)
        speeds.append(number / (time.process_time() - begun))
    return {"first": first, "speed": max(speeds), "memory": (resident("VmHWM") - before) / MIB}


def exactness(reader: str, folder: Path, cache: Path) -> dict[str, object]:
    """What an epoch with a restart loses and repeats, and whether two processes read what one does."""
    whole = keys(reader, folder, cache)
    stop = len(whole) // 3
    seen = Counter(whole[:stop] + keys(reader, folder, cache, stop))
    lost, twice = len(set(whole) - set(seen)), sum(seen.values()) - len(seen)
    two = [keys(reader, folder, cache, 0, rank, 2) for rank in (0, 1)]
    half, batches = BATCH // 2, range(len(whole) // BATCH)
    together = [{key for some in two for key in some[half * number : half * (number + 1)]} for number in batches]
    same = sum(together[number] == set(whole[BATCH * number : BATCH * (number + 1)]) for number in batches)
    in_order = whole[stop:] == keys(reader, folder, cache, stop)
    return {"lost": lost, "twice": twice, "in order": in_order, "same": same, "batches": len(batches)} | {
        "damage": survived(reader, folder, cache.with_name(f"{cache.name}-damage"))
    }


def damaged(folder: Path, to: Path, picture: bool) -> Path:
    """A copy of the shards with one picture's bytes gone, or half of the last shard."""
    shutil.copytree(folder, to)
    last = sorted(to.glob("*.tar"))[-1]
    content = last.read_bytes()
    last.write_bytes(content[:512] + bytes(2048) + content[2560:] if picture else content[: len(content) // 2 + 100])
    return to


def survived(reader: str, folder: Path, work: Path) -> str:
    """What a reader makes of damage: the share of pairs that it gives, or its error."""
    found, whole = [], len(keys(reader, folder, work / "cache"))
    for picture in (True, False):
        there = damaged(folder, work / f"damaged-{picture}", picture)
        try:
            found.append(f"{len(set(keys(reader, there, work / f'cache-{picture}'))) / whole:.1%}")
        except Exception as error:  # whatever it is
            found.append(type(error).__name__)
    return ", ".join(found)


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(folder: Path, work: Path) -> str:
    """Every reader's row, with its speed and start against the first one's."""
    title = (
        "| reader | first s | again s | pairs/s | of WebShards | disk MiB | memory MiB | resume | two = one | damage |"
    )
    lines, base = [title, "| --- |" + " ---: |" * 6 + " --- |" * 3], None
    for number, reader in enumerate(READERS):
        cache = work / f"cache-{number}"
        arguments = (__file__, "--reader", reader, "--folder", folder, "--cache", cache)
        found = in_a_process(*arguments, give_back=False)
        again = in_a_process(*arguments, "--exact", give_back=False)
        exact, base = again["exact"], base or found["speed"]
        order = "same order" if exact["in order"] else "another order"
        resume = f"{exact['lost']} lost, {exact['twice']} twice, {order}"
        lines.append(
            f"| {reader} | {found['first']:.2f} | {again['first']:.2f} | {found['speed']:.0f} "
            f"| {found['speed'] / base:.2f} | {size(cache) / MIB if cache.exists() else 0:.1f} "
            f"| {found['memory']:.0f} | {resume} "
            f"| {exact['same']} of {exact['batches']} batches | {exact['damage']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("shards", 4), ("pairs", 250), ("side", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("reader", "folder", "cache"):  # of a reader's own process
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--exact", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        given = (args.reader, Path(args.folder), Path(args.cache))
        print(json.dumps(measure(*given) | ({"exact": exactness(*given)} if args.exact else {})))
        return
    with tempfile.TemporaryDirectory() as work:
        os.environ |= {"HF_HOME": f"{work}/hf", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
        folder = Path(work) / "shards"
        make_shards(folder, args.shards, args.pairs, args.side)
        print(f"{args.shards} shards of {args.pairs} pairs, {args.side} pixels, {size(folder) / MIB:.1f} MiB\n")
        print(table(folder, Path(work)))


if __name__ == "__main__":
    main()
