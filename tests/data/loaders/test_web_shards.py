"""Tar shards of image-text pairs: read in place, indexed once, and nothing in them can stop or fool a run."""

import copy
import gzip
import json
import os
import re
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kit.shards import image_file, member, number_of, sample, write_shard, write_shards
from ovs_lite.data import images
from ovs_lite.data.loaders import shard_index, web_shards
from ovs_lite.data.loaders.pair_batches import PairBatches
from ovs_lite.data.loaders.web_shards import WebShards


def opened(paths, tmp_path, **options):
    return WebShards(paths, cache=tmp_path / "cache", **options)


def test_a_record_has_the_columns_that_every_split_has(tmp_path):
    split = opened(write_shards(tmp_path, [3, 0, 2]), tmp_path)
    assert len(split) == 5 and split.report.read == 0
    for index, record in enumerate(split):
        assert list(record) == ["image_id", "image", "segments", "segments_info", "captions"]
        assert record["image"].mode == "RGB" and record["image"].size == (8, 9)
        assert number_of(record) == index and record["captions"] == [f"picture {index}"]
        assert record["image_id"] == f"part-{0 if index < 3 else 2:05d}/{index:09d}"
        assert record["segments"] is None and record["segments_info"] is None
    assert split[-1]["image_id"] == split[np.int64(4)]["image_id"] and split.report.read == 7
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=f"got sample {wrong}, expected one of 5"):
            split[wrong]


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp", "PNG"])
def test_every_kind_of_picture_counts(tmp_path, kind):
    content = image_file(9, {"jpg": "JPEG"}.get(kind.lower(), kind.upper()))
    path = write_shard(tmp_path / "a.tar", [member(f"x/1.{kind}", content), member("x/1.txt", b" a dog \n")])
    record = opened(path, tmp_path)[0]
    assert record["image_id"] == "a/x/1" and record["captions"] == ["a dog"]


def test_a_text_may_stand_anywhere_and_the_first_of_a_name_counts(tmp_path):
    first, second = sample(1), sample(2)
    again = [member("000000001.txt", b"another"), member("000000001.jpg", b"another")]
    members = [first[1], *second, first[0], *again, *sample(3, key="./3")]
    split = opened(write_shard(tmp_path / "a.tar", members), tmp_path)
    assert [record["captions"] for record in split] == [["picture 2"], ["picture 1"], ["picture 3"]]
    assert split[2]["image_id"] == "a/3"
    assert split.report.skipped == [
        ("a/000000001.txt", "000000001.txt has the same key and counts"),
        ("a/000000001.jpg", "000000001.png has the same key and counts"),
    ]


def test_long_and_foreign_names_are_kept_apart(tmp_path):
    keys = ["a" * 180 + "1", "a" * 180 + "2", "Straße", "b" * 256]
    members = [part for number, key in enumerate(keys) for part in sample(number, key=key)]
    split = opened(write_shard(tmp_path / "a.tar", members), tmp_path)
    assert [record["image_id"] for record in split] == [f"a/{key}" for key in keys[:3]]
    long = "a key of 256 bytes, expected at most 255"
    assert split.report.skipped == [(f"a/{'b' * 256}.{kind}", long) for kind in ("png", "txt")]


UNUSED = {
    "dots in a name": (["photo.v2.png", "photo.v2.txt"], "field 'v2.(png|txt)'"),
    "named fields": (["s0.input.png", "s0.outputs.txt"], "ends at the first dot, 's0'"),
    "a text alone": (["texts/1.txt"], "no image of key 'texts/1'"),
    "letter case": (["IMG.txt"], "no image of key 'IMG'"),
    "absolute": (["/etc/1.png", "/etc/1.txt"], "got file name '/etc/1"),
    "outside": (["../1.png", "a/../../1.txt"], r"expected a relative path without '\.\.'"),
    "hidden": (["._1.png", ".txt"], "begins with a dot"),
    "a second image": (["000000000.jpg"], "000000000.png has the same key and counts"),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_every_image_and_text_that_is_not_used_is_listed_with_the_reason(tmp_path, kind):
    names, reason = UNUSED[kind]
    path = write_shard(tmp_path / "a.tar", [*sample(0), *(member(name, image_file(3)) for name in names), *sample(1)])
    for split in (opened(path, tmp_path), opened(path, tmp_path)):  # the second comes from the cache
        assert [number_of(record) for record in split] == [0, 1]
        assert [name for name, _ in split.report.skipped] == [f"a/{name}" for name in names]
        assert all(re.search(reason, why) for _, why in split.report.skipped)
        assert (split.unused, split.bad_shards, split.report.unused) == (len(names), 0, {"json": 2})
    assert all(name in split.report.summary() for name in names) and ": 2 json" in split.report.summary()


def test_keys_end_as_webdataset_ends_them(tmp_path):
    names = ["a.b/1.png", "a.b/1.txt", "./c/2.png", "./c/2.txt"]
    members = [member(name, b"text" if name.endswith("txt") else image_file(3)) for name in names]
    split = opened(write_shard(tmp_path / "a.tar", members), tmp_path)
    assert [record["image_id"] for record in split] == ["a/a.b/1", "a/c/2"] and not split.report.skipped


def test_many_unused_members_are_listed_in_part_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(web_shards, "MAX_LISTED", 3)
    path = write_shard(tmp_path / "a.tar", [*sample(0), *(member(f"t{number}.txt", b"text") for number in range(9))])
    split = opened(path, tmp_path)
    assert [name for name, _ in split.report.skipped] == ["a/t0.txt", "a/t1.txt", "a/t2.txt", str(path)]
    assert split.unused == 9 and "6 more members" in split.report.skipped[-1][1]


def test_captions_lose_what_no_tokenizer_should_see(tmp_path):
    texts = [b"\xef\xbb\xbfa red box", b"a\0 red\r\nbox\n", b"\xef\xbb\xbf", b"\0\0"]
    members = [part for n, text in enumerate(texts) for part in (sample(n)[0], member(f"{n:09d}.txt", text))]
    split = opened(write_shard(tmp_path / "a.tar", members), tmp_path)
    assert [split[index]["captions"] for index in (0, 1)] == [["a red box"]] * 2
    assert number_of(split[2]) == 0 and [why for _, why in split.report.skipped] == ["got an empty text"] * 2


HOSTILE = [
    *(("link.png", {"type": kind, "linkname": "/etc/passwd"}) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)),
    ("sparse.png", {"type": tarfile.GNUTYPE_SPARSE}),
    *(("device.png", {"type": kind}) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)),
    ("/absolute.png", {}),
    ("../outside.png", {}),
    ("a/../../outside.png", {}),
    (".png", {}),
    ("._000.png", {}),
]


@pytest.mark.parametrize(("name", "header"), HOSTILE)
def test_hostile_members_are_no_samples_and_nothing_is_written(tmp_path, name, header):
    folder = tmp_path / "in"
    content = b"" if "type" in header else image_file(5)
    members = [*sample(0), member(name, content, **header), member(name.replace("png", "txt"), b"text"), *sample(1)]
    split = opened(write_shard(folder / "a.tar", members), tmp_path)
    assert [number_of(record) for record in split] == [0, 1] and split.bad_shards == 0
    names = {name, name.replace("png", "txt")} - ({name} if header.get("type") == tarfile.DIRTYPE else set())
    assert {listed for listed, _ in split.report.skipped} == {f"a/{name}" for name in names}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.suffix != ".npz") == ["a.tar", "cache", "in"]


def patched(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(bytes(data))


def with_header(path, at, size_field):
    """Put another size into the header at byte `at` and set its checksum right again."""
    header = bytearray(path.read_bytes()[at : at + 512])
    header[124:136], header[148:156] = size_field, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    patched(path, at, header)


DAMAGE = {
    "no tar": lambda path: path.write_bytes(b"no tar at all" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "compressed": lambda path: path.write_bytes(gzip.compress(path.read_bytes() + os.urandom(20_000))),
    "cut in a picture": lambda path: os.truncate(path, 512 + 20),
    "cut in a header": lambda path: os.truncate(path, 1024 + 100),
    "cut before the padding": lambda path: os.truncate(path, 1024 + 512 + 9),
    "a damaged header": lambda path: patched(path, 1024, b"garbage" * 60),
    "a size beyond the end": lambda path: with_header(path, 1024, b"77777777777\0"),
    "a negative size": lambda path: with_header(path, 1024, negative(-1024)),
}


def negative(size):
    """The size field of a tar header in its binary form."""
    return (2**96 + size).to_bytes(12, "big")


@pytest.mark.parametrize(("name", "size"), [("../x.txt", -1536), ("../x.txt", -512), ("0.txt", -100), ("0.txt", -1)])
def test_a_header_that_leads_back_or_nowhere_is_damage(tmp_path, name, size):
    """The first two would be read again and again, the others have room for the next header where it belongs."""
    path = write_shard(tmp_path / "a.tar", [member("0.png", image_file(0)), member(name), *sample(1)])
    with_header(path, 1024, negative(size))
    with pytest.raises(ValueError, match="claims -"):
        opened(path, tmp_path)


def test_a_bad_shard_changes_no_name(tmp_path):
    for folder in ("cc3m", "cc12m"):
        write_shards(tmp_path / folder, [1])
    DAMAGE["no tar"](tmp_path / "cc12m" / "part-00000.tar")
    assert opened(tmp_path / "cc*/*.tar", tmp_path)[0]["image_id"] == "cc3m/part-00000/000000000"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_shard_is_listed_and_left_out(tmp_path, damage):
    pattern = write_shards(tmp_path, [2, 2, 2])
    bad = tmp_path / "part-00001.tar"
    DAMAGE[damage](bad)
    split = opened(pattern, tmp_path)
    assert [number_of(record) for record in split] == [0, 1, 4, 5]
    [(name, reason)] = split.report.skipped
    assert name == str(bad) and "not a whole tar file" in reason
    with pytest.raises(ValueError, match="got 1 shards without one pair that can be read"):
        opened(bad, tmp_path)


def test_a_shard_without_pairs_is_no_split(tmp_path):
    reasons = {
        "a/1.txt: no image of key '1' in the shard": [member("1.txt", b"text"), member("readme.md", b"text")],
        "not read: 1 gif, 1 without a suffix": [member("1.gif", b"GIF"), member("README", b"text")],
        "a.tar: 1 images, none with a text": [member("1.png", image_file(1)), member("1.json", b"{}")],
        "a.tar: 0 images": [],
    }
    for reason, members in reasons.items():
        with pytest.raises(ValueError, match=r"got 1 shards without one pair .*expected KEY.jpg") as error:
            opened(write_shard(tmp_path / "a.tar", members), tmp_path)
        assert reason in str(error.value)
        (tmp_path / "a.tar").unlink()


def test_an_archive_without_end_mark_is_whole(tmp_path):
    path = write_shard(tmp_path / "a.tar", sample(0)[:2])
    os.truncate(path, 4 * 512)
    assert len(opened(path, tmp_path)) == 1


def test_missing_shards_are_named(tmp_path):
    write_shards(tmp_path, [1])
    for wrong in ("part-{00000..00002}.tar", "other-*.tar", "", "part-{00002..00001}.tar"):
        with pytest.raises(FileNotFoundError, match="part-00001.tar|other-|no shard") as error:
            opened(tmp_path / wrong, tmp_path)
        assert "expected tar files" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"no shard at \S+part-00001.tar \(2 missing\)"):
        opened(str(tmp_path / "part-{00000..00002}.tar"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no shard in \[\]"):
        opened([], tmp_path)


def test_patterns_with_braces_stars_and_lists_name_shards_once(tmp_path, monkeypatch):
    for folder in ("cc3m", "cc12m"):
        write_shards(tmp_path / folder, [1] * 12)
    write_shard(tmp_path / "cc3m" / "odd[1]{a,b}.tar", sample(99))

    def names(patterns):
        return [path.relative_to(tmp_path).as_posix() for path in opened(patterns, tmp_path).paths]

    assert names(tmp_path / "cc3m/part-{00009..00011}.tar") == [f"cc3m/part-{i:05d}.tar" for i in (9, 10, 11)]
    assert names(tmp_path / "{cc3m,cc12m}/part-0000{3..4}.tar") == [
        f"{folder}/part-0000{i}.tar" for folder in ("cc3m", "cc12m") for i in (3, 4)
    ]
    assert names([tmp_path / "cc3m/part-00005.tar", f"{tmp_path}/cc*/part-0000[45].tar"]) == [
        "cc3m/part-00005.tar", "cc12m/part-00004.tar", "cc12m/part-00005.tar", "cc3m/part-00004.tar",
    ]  # fmt: skip
    assert names(tmp_path / "cc3m/odd[1]{a,b}.tar") == ["cc3m/odd[1]{a,b}.tar"], "a name that exists is no pattern"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("cc3m/part-00000.tar") == names("~/cc3m/part-00000.tar") == ["cc3m/part-00000.tar"]
    both = opened("cc*/part-00000.tar", tmp_path)
    assert [record["image_id"] for record in both] == ["cc12m/part-00000/000000000", "cc3m/part-00000/000000000"]


BAD = {
    "no text": [member("bad.png", image_file(1))],
    "an empty text": [member("bad.png", image_file(1)), member("bad.txt", b"  \n")],
    "no UTF-8": [member("bad.png", image_file(1)), member("bad.txt", b"\xff\xfe")],
    "a long text": [member("bad.png", image_file(1)), member("bad.txt", b"a" * 100_001)],
    "no image": [member("bad.png", b"nothing"), member("bad.txt", b"text")],
    "half a picture": [member("bad.png", image_file(1, "JPEG", 40)[:-30]), member("bad.txt", b"text")],
    "a large file": [member("bad.png", image_file(1) + bytes(2000)), member("bad.txt", b"text")],
    "a large picture": [member("bad.png", image_file(1, side=45)), member("bad.txt", b"text")],
}
REASONS = [
    "no text",
    "empty text",
    "utf-8",
    "100001 bytes of text",
    "cannot be read",
    "damaged",
    "bytes of image",
    "45 x",
]


@pytest.mark.parametrize(("kind", "reason"), list(zip(BAD, REASONS, strict=True)))
def test_the_next_good_sample_stands_in_for_a_bad_one(tmp_path, monkeypatch, kind, reason):
    monkeypatch.setattr(web_shards, "MAX_IMAGE_BYTES", 2000)
    monkeypatch.setattr(images, "MAX_PIXELS", 1700)
    read, tried = web_shards.read_image, []
    monkeypatch.setattr(web_shards, "read_image", lambda source: tried.append(source) or read(source))
    split = opened(write_shard(tmp_path / "a.tar", [*sample(0), *BAD[kind], *sample(2)]), tmp_path)
    assert [number_of(split[index]) for index in (0, 1, 2, 1)] == [0, 2, 2, 2]
    [(name, found)] = split.report.skipped
    assert name == "a/bad" and reason in found, "listed once, though it was met twice"
    assert (split.report.read, split.report.annotations_read) == (4, 4)
    assert len(tried) - len(set(tried)) == 2, "a bad picture is tried once"


def test_a_bad_sample_that_two_threads_meet_at_once_is_listed_once(tmp_path, monkeypatch):
    split = opened(write_shard(tmp_path / "a.tar", [*sample(0), *BAD["no image"]]), tmp_path)
    both, read = threading.Barrier(2), web_shards.read_image

    def together(source):
        if source == b"nothing":
            both.wait()
        return read(source)

    monkeypatch.setattr(web_shards, "read_image", together)
    with ThreadPoolExecutor(2) as pool:
        assert [number_of(record) for record in pool.map(split.__getitem__, [1, 1])] == [0, 0]
    assert [name for name, _ in split.report.skipped] == ["a/bad"]


def test_behind_the_last_sample_comes_the_first(tmp_path):
    split = opened(write_shard(tmp_path / "a.tar", [*sample(0), *sample(1), *BAD["no text"]]), tmp_path)
    assert number_of(split[2]) == 0


def test_a_hundred_bad_samples_in_a_row_end_the_run(tmp_path):
    bad = [member(f"{number}.png", b"nothing") for number in range(100)]
    split = opened(write_shard(tmp_path / "a.tar", [*sample(0), *bad, *sample(1)]), tmp_path)
    with pytest.raises(ValueError, match="100 bad samples in a row from 1; look at the shard\n0 images read, 100"):
        split[1]
    assert number_of(split[2]) == 1 and len(split.report.skipped) == 100


def headers_read(monkeypatch):
    read, original = [], shard_index._read_headers
    monkeypatch.setattr(shard_index, "_read_headers", lambda path: read.append(path.name) or original(path))
    return read


def test_headers_are_read_once_and_again_when_a_shard_changes(tmp_path, monkeypatch):
    read = headers_read(monkeypatch)
    pattern = write_shards(tmp_path, [2, 3])
    first = [record["image_id"] for record in opened(pattern, tmp_path)]
    assert read == ["part-00000.tar", "part-00001.tar"]
    assert [record["image_id"] for record in opened(pattern, tmp_path)] == first and len(read) == 2
    time = (tmp_path / "part-00001.tar").stat().st_mtime_ns
    write_shard(tmp_path / "part-00001.tar", [part for number in range(5, 9) for part in sample(number)])
    os.utime(tmp_path / "part-00001.tar", ns=(time, time))
    assert [number_of(record) for record in opened(pattern, tmp_path)] == [0, 1, 5, 6, 7, 8]
    assert read[2:] == ["part-00001.tar"], "another size"
    write_shard(tmp_path / "part-00001.tar", sample(8))
    os.utime(tmp_path / "part-00001.tar", ns=(1, 1))
    assert [number_of(record) for record in opened(pattern, tmp_path)] == [0, 1, 8]
    assert read[3:] == ["part-00001.tar"], "another time"
    os.rename(tmp_path / "part-00001.tar", tmp_path / "part-00002.tar")
    assert len(opened(pattern, tmp_path)) == 3 and read[4:] == ["part-00002.tar"], "another name"


def other_index(**changes):
    entries = np.zeros(1, [*((name, np.int64) for name in shard_index.PLACES), ("key", "S5")])
    for name, value in changes.items():
        entries[name] = value
    return entries


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", np.arange(3), other_index(image_size=10**9), other_index(text_at=10**9), other_index(image_at=-5),
     other_index()[0], np.zeros(1, [("image_at", np.int64)]), {}, [["a"], {}], [[["a", "b"]], {"json": "x"}]],
)  # fmt: skip
def test_a_damaged_cache_is_read_again(tmp_path, monkeypatch, content):
    read = headers_read(monkeypatch)
    pattern = write_shards(tmp_path, [2])
    opened(pattern, tmp_path)
    [cached] = (tmp_path / "cache").iterdir()
    with np.load(cached) as stored:
        parts = dict(stored)
    if isinstance(content, bytes):
        cached.write_bytes(content)
    else:
        array = not isinstance(content, list | dict)
        content = content if array else np.frombuffer(json.dumps(content).encode(), np.uint8)
        np.savez(cached, **parts | {"samples" if array else "about": content})
    assert [number_of(record) for record in opened(pattern, tmp_path)] == [0, 1] and len(read) == 2
    opened(pattern, tmp_path)
    assert len(read) == 2, "and mended"


def test_without_a_place_for_the_cache_headers_are_read_every_time(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    read = headers_read(monkeypatch)
    for _ in range(2):
        assert len(opened(write_shards(tmp_path, [2]), tmp_path)) == 2
    assert len(read) == 2


def test_the_cache_lies_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_CACHE", str(tmp_path / "elsewhere"))
    WebShards(write_shards(tmp_path, [1]))
    assert [path.suffix for path in (tmp_path / "elsewhere" / "webshards").iterdir()] == [".npz"]


def test_an_order_is_a_permutation_shuffled_in_windows(tmp_path, monkeypatch):
    split = opened(write_shards(tmp_path, [30, 10, 0, 20, 40]), tmp_path)
    monkeypatch.setattr(web_shards, "WINDOW", 25)
    orders = [split.order(seed, epoch) for seed in (0, 1) for epoch in range(3)]
    assert all(np.array_equal(np.sort(order), np.arange(100)) and order.dtype == np.int64 for order in orders)
    assert len({order.tobytes() for order in orders}) == 6 and np.array_equal(split.order(1, 2), orders[5])
    owner = np.repeat([0, 1, 3, 4], [30, 10, 20, 40])
    for order in orders:
        sequence = [int(s) for s in dict.fromkeys(owner[order])]
        runs = [owner == s for s in sequence]
        blocks = np.concatenate([np.flatnonzero(run) for run in runs])
        windows = [order[start : start + 25] for start in range(0, 100, 25)]
        assert sum(set(w) == set(blocks[i * 25 : i * 25 + 25]) for i, w in enumerate(windows)) >= 2, (
            "nearly in sequence"
        )
        assert not any(np.array_equal(window, np.sort(window)) for window in windows), "shuffled inside"
    firsts = {int(owner[order[0]]) for order in (split.order(seed, 0) for seed in range(20))}
    assert len(firsts) >= 3, "shards are shuffled too"


def test_a_window_holds_samples_of_neighbouring_shards_only(tmp_path, monkeypatch):
    """With windows as long as the equal shards each shard is read to its end before the next."""
    split = opened(write_shards(tmp_path, [10] * 5), tmp_path)
    monkeypatch.setattr(web_shards, "WINDOW", 10)
    read = split.order(3, 0).reshape(5, 10) // 10
    assert (read == read[:, :1]).all() and len(set(read[:, 0])) == 5 and list(read[:, 0]) != sorted(read[:, 0])
    monkeypatch.setattr(web_shards, "WINDOW", 50)
    assert (np.diff(split.order(3, 0) // 10) != 0).sum() > 30, "one window mixes all"


def test_threads_read_at_once_and_no_file_stays_open(tmp_path):
    split = opened(write_shards(tmp_path, [4] * 6), tmp_path)
    before = len(os.listdir("/dev/fd"))
    asked = [int(i) for i in np.random.default_rng(0).integers(24, size=600)]
    with ThreadPoolExecutor(8) as pool:
        assert [number_of(record) for record in pool.map(split.__getitem__, asked)] == asked
    assert len(os.listdir("/dev/fd")) == before


def test_a_copy_reads_as_the_original(tmp_path):
    split = opened(write_shards(tmp_path, [2, 2]), tmp_path)
    assert [number_of(copy.deepcopy(split)[index]) for index in (3, 0)] == [3, 0]


def test_a_shard_that_shrinks_while_it_is_read_gives_bad_samples(tmp_path):
    split = opened(write_shards(tmp_path, [2, 1]), tmp_path)
    os.truncate(tmp_path / "part-00000.tar", 100)
    assert number_of(split[0]) == 2
    assert [name for name, _ in split.report.skipped] == ["part-00000/000000000", "part-00000/000000001"]
    assert all("the shard was truncated since" in reason for _, reason in split.report.skipped)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_from_shards_in_the_order_of_the_shards(tmp_path, workers):
    split = opened(write_shards(tmp_path, [3, 4, 5]), tmp_path)
    batches = PairBatches(split, 4, 8, seed=2, workers=workers)
    found = [batches(index) for index in range(6)]
    for epoch in range(2):
        captions = [text for batch in found[3 * epoch : 3 * epoch + 3] for text in batch.captions]
        assert captions == [f"picture {number}" for number in split.order(2, epoch)]
    assert [round(float(image[0, 0, 0]) * 255) for image in found[5].images] == list(split.order(2, 1)[8:])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_gather_the_bad_samples_that_any_process_met(tmp_path, workers):
    bad = [member("bad.png", b"nothing"), member("bad.txt", b"text")]
    (tmp_path / "empty.tar").write_bytes(b"no archive")
    split = WebShards(
        [write_shard(tmp_path / "a.tar", [*sample(0), *bad, *sample(1)]), tmp_path / "empty.tar"], tmp_path
    )
    batches = PairBatches(split, batch_size=3, size=8, workers=workers)
    for index in range(2):
        assert len(batches(index).image_ids) == 3
    assert list(batches.skipped) == ["a/bad"] and split.bad_shards == 1
