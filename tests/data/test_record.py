"""The record: what is written comes back, the same records give the same bytes, faults leave nothing behind."""

import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from kit import warm
from kit.processes import environment, working_process
from kit.records import scene, three_segments, toy
from ovs_lite.data import record
from ovs_lite.data.images import encode_image
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.rle import decode_rle
from ovs_lite.data.schema import FEATURES
from ovs_lite.data.segments import decode_segments, describe_segment, encode_segments, semantic_map
from ovs_lite.files import file_digest


def tree_digest(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def write(folder, count=70, **options):
    return write_split((three_segments(i) for i in range(count)), folder, progress=False, **options)


def test_what_is_written_comes_back(tmp_path):
    manifest = write(tmp_path / "set" / "train", creator={"seed": 3})
    dataset = load_split(tmp_path / "set" / "train", verify=True)
    assert tuple(dataset.column_names) == tuple(FEATURES) and len(dataset) == manifest["count"] == 70
    assert manifest["creator"] == {"seed": 3}
    for index in (0, 33, 69):  # first, second and last batch
        expected, row = three_segments(index), dataset[index]
        assert row["image_id"] == f"r{index}" and row["captions"] == ["a"]
        assert np.array_equal(np.asarray(row["image"]), expected["image"]) and row["image"].mode == "RGB"
        assert np.array_equal(decode_segments(row["segments"]), expected["segments"])
        assert row["segments_info"] == expected["segments_info"]


def test_null_segments_bytes_and_masks(tmp_path):
    plain = three_segments(0) | {"segments": None, "segments_info": None, "captions": []}
    encoded = three_segments(1) | {"image": Image.new("L", (16, 12))}
    encoded["segments"] = encode_segments(encoded["segments"])
    write_split([plain, encoded], tmp_path / "a", progress=False)
    first, second = load_split(tmp_path / "a")
    assert first["segments"] is None and first["segments_info"] is None and first["captions"] == []
    assert np.array_equal(decode_segments(second["segments"]), three_segments(1)["segments"])
    write_split([three_segments(2, masks=True)], tmp_path / "b", columns="masks", progress=False)
    (row,) = load_split(tmp_path / "b")
    assert np.array_equal(decode_rle(row["masks"][1]), three_segments(2)["segments"] > 0)


def test_a_turned_jpeg_as_bytes_takes_the_upright_map_alone(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[3:9, 40:52] = (255, 0, 0)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, quality=95, subsampling=0)
    stored = (pixels[..., 0] > 128).astype(np.int32)
    for name, ids in (("upright", np.rot90(stored, -1)), ("stored", stored)):
        infos = [describe_segment(ids == 1, 1, 0, True, False)]
        record = {"image_id": name, "image": stream.getvalue(), "captions": [], "segments": ids, "segments_info": infos}
        if name == "stored":
            with pytest.raises(ValueError, match=r"stored.*\(40, 60\), expected the image's \(60, 40\)"):
                write_split([record], tmp_path / name, progress=False)
            continue
        write_split([record], tmp_path / name, progress=False)
        [row] = load_split(tmp_path / name)
        assert np.array_equal(np.asarray(row["image"])[..., 0] > 128, decode_segments(row["segments"]) == 1)


def test_same_records_same_bytes(tmp_path):
    """Twice here and once in another process with another hash seed."""
    write(tmp_path / "a")
    write(tmp_path / "b" / "a")
    code = """
import sys
from kit.records import scene, three_segments, toy
from ovs_lite.data.record import write_split
write_split(map(three_segments, range(70)), sys.argv[1], progress=False)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "c" / "a")]
    subprocess.run(command, env=environment() | {"PYTHONHASHSEED": "7"}, check=True)
    digests = {tree_digest(tmp_path / name) for name in ("a", "b/a", "c/a")}
    assert len(digests) == 1
    write(tmp_path / "d" / "a", count=69)
    assert tree_digest(tmp_path / "d" / "a") not in digests


def test_the_folder_is_one_of_datasets_and_names_its_split(tmp_path):
    write(tmp_path / "set" / "train2017-mini", count=3)
    dataset = datasets.load_from_disk(str(tmp_path / "set" / "train2017-mini"))
    assert dataset["image_id"][:] == ["r0", "r1", "r2"] and dataset.split == "train2017_mini"


def test_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("ovs_lite.data.record.SHARD_BYTES", 20_000)
    write(tmp_path / "a", count=65)
    assert len(list((tmp_path / "a").glob("*.arrow"))) > 2
    assert load_split(tmp_path / "a", verify=True)["image_id"][:] == [f"r{i}" for i in range(65)]


@pytest.mark.parametrize("columns", ["segments", "masks", "pairs"])
def test_a_split_without_records_is_refused(tmp_path, columns):
    with pytest.raises(ValueError, match="got no records, expected one or more"):
        write(tmp_path / "empty", count=0, columns=columns)
    assert list(tmp_path.iterdir()) == []


def test_records_are_streamed(tmp_path):
    """Never more than two batches ahead: the source sees the file grow."""
    sizes = []

    def source():
        for index in range(200):
            sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*.arrow")))
            yield three_segments(index)

    write_split(source(), tmp_path / "a", progress=False)
    assert sizes[0] == 0 and 0 < sizes[96] < sizes[160] < sizes[192]


def test_the_bars_of_datasets_are_hidden_and_come_back(tmp_path, capsys):
    for shown, switch in ((True, datasets.enable_progress_bars), (False, datasets.disable_progress_bars)):
        switch()
        write_split([three_segments(0)], tmp_path / str(shown) / "val", total=1)
        assert datasets.are_progress_bars_disabled() is not shown
    datasets.enable_progress_bars()
    bars = capsys.readouterr().err
    assert "True val: 100%" in bars and "False val: 100%" in bars and "Generating" not in bars and "Saving" not in bars


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing_behind(tmp_path, fault):
    def source():
        yield from (three_segments(i) for i in range(40))
        raise fault("power")

    with pytest.raises(fault):
        write_split(source(), tmp_path / "a", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_old_folder(tmp_path):
    write(tmp_path / "a", count=3)
    before = tree_digest(tmp_path / "a")
    with pytest.raises(FileExistsError, match="overwrite"):
        write(tmp_path / "a", count=4)
    with pytest.raises(ValueError, match="r0.*twice|twice"):
        write_split([three_segments(0), three_segments(0)], tmp_path / "a", overwrite=True, progress=False)
    assert tree_digest(tmp_path / "a") == before
    write(tmp_path / "a", count=4, overwrite=True)
    assert len(load_split(tmp_path / "a")) == 4 and [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_the_old_folder_comes_back_where_the_new_one_cannot_move_in(tmp_path, monkeypatch, fault):
    write(tmp_path / "a", count=3)
    before, rename = tree_digest(tmp_path / "a"), Path.rename

    def failing(path, target):
        if path.name == "new":
            raise fault
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(fault):
        write(tmp_path / "a", count=4, overwrite=True)
    assert tree_digest(tmp_path / "a") == before and [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("when", ["rows", "save"])
def test_a_killed_process_leaves_the_old_folder(tmp_path, when):
    """No `finally` runs: killed among the records, and killed while the new folder is saved."""
    write(tmp_path / "a", count=3)
    before = tree_digest(tmp_path / "a")
    done = warm.run("kit.killed_writer.write", tmp_path / "a", when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert tree_digest(tmp_path / "a") == before and len(load_split(tmp_path / "a", verify=True)) == 3
    write(tmp_path / "a", count=4, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "the next call removes what the killed one left"


def test_another_process_that_writes_the_folder_is_named(tmp_path):
    (tmp_path / ".b.new").mkdir()
    with working_process(tmp_path, ".a.lock") as other:
        with pytest.raises(BlockingIOError, match=f"process {other.pid} on .* works there"):
            write(tmp_path / "a")
        write(tmp_path / "a-b")
    write(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.new", "a", "a-b"]


def spoil(**changes):
    return three_segments(0) | changes


def spoiled_info(**changes):
    infos = three_segments(0)["segments_info"]
    return spoil(segments_info=[infos[0] | changes, *infos[1:]])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (spoil(image_id=""), "image_id"),
        (spoil(image_id=7), "image_id"),
        (spoil(extra=1), "columns"),
        ({"image_id": "r0"}, "columns"),
        (spoil(captions="a cat"), "captions"),
        (spoil(captions=["a", " "]), "captions"),
        (spoil(image=np.ones((12, 16, 3))), "float64"),
        (spoil(image=b"<html>404</html>"), "r0.*the encoded image cannot be read"),
        (spoil(image=encode_image(np.zeros((12, 16, 3), np.uint8))[:45]), "r0.*truncated"),
        (spoil(segments=b"<html>"), "r0.*no whole PNG"),
        (spoil(segments=encode_segments(three_segments(0)["segments"])[:45]), "r0.*no whole PNG"),
        (spoil(segments=None), "without the other"),
        (spoil(segments_info=None), "without the other"),
        (spoil(segments=np.zeros((12, 15), int)), "12, 15"),
        (spoil(segments=three_segments(0)["segments"] + 1), "65536"),
        (spoil(segments=three_segments(0)["segments"].astype(float)), "integers"),
        (spoil(segments_info=three_segments(0)["segments_info"][:2]), "what the map holds"),
        (spoiled_info(id=2), "what the map holds"),
        (spoiled_info(area=1), "what the map holds"),
        (spoiled_info(category_id=-2), "category_id"),
        (spoiled_info(bbox=[10, 0, 7, 5]), "bbox"),
        (spoiled_info(colour="red"), "colour"),
    ],
)
def test_bad_records_are_named(tmp_path, record, message):
    with pytest.raises(ValueError, match=message):
        write_split([record], tmp_path / "a", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="ovs-lite data build"):
        load_split(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="ovs-lite data build"):
        load_split(tmp_path)
    write(tmp_path / "a", count=5)
    data, manifest = tmp_path / "a" / "data-00000-of-00001.arrow", tmp_path / "a" / "manifest.json"
    content = data.read_bytes()
    data.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="data-00000-of-00001.arrow has .* bytes"):
        load_split(tmp_path / "a")
    middle = len(content) // 2
    data.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(ValueError, match="sha256"):
        load_split(tmp_path / "a", verify=True)
    with pytest.raises(ValueError, match="sha256.*remove that folder and make it again by the command that wrote it"):
        load_split(tmp_path / "a")  # not this content, though the process has read the file before
    data.unlink()
    with pytest.raises(ValueError, match="missing"):
        load_split(tmp_path / "a")
    data.write_bytes(content)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"count": 6}))
    with pytest.raises(ValueError, match="5 records, 6 in the manifest"):
        load_split(tmp_path / "a")
    manifest.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_split(tmp_path / "a")


def test_each_file_is_verified_once_per_process_and_no_flipped_bit_passes(tmp_path, monkeypatch):
    write(tmp_path / "a", count=3)
    digests, files = [], sorted(path for path in (tmp_path / "a").iterdir() if path.name != "manifest.json")
    monkeypatch.setattr(record, "file_digest", lambda path: digests.append(path) or file_digest(path))
    for verify, expected in ((False, 0), (None, 3), (None, 3), (True, 6), (False, 6)):
        load_split(tmp_path / "a", verify)
        assert len(digests) == expected
    for file in files:
        whole = file.read_bytes()
        for place in np.random.default_rng(0).integers(8 * len(whole), size=40).tolist():
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"a is damaged .{file.name} differs from its sha256"):
                load_split(tmp_path / "a")
        file.write_bytes(whole)
    assert len(load_split(tmp_path / "a")) == 3


def test_segments_round_trip_and_refuse_other_pngs():
    ids = np.array([[0, 1, 255], [256, 40_000, 65_535]])
    assert np.array_equal(decode_segments(encode_segments(ids)), ids)
    for bad in (ids - 1, ids + 1, ids.astype(float), ids[0], np.zeros((0, 3), int)):
        with pytest.raises(ValueError, match="expected"):
            encode_segments(bad)
    with pytest.raises(ValueError, match="mode 'L'"):
        decode_segments(Image.new("L", (3, 3)))


def test_description_of_a_segment():
    mask = np.zeros((9, 11), dtype=bool)
    mask[2:5, 7:11] = mask[6, 8] = True
    info = describe_segment(mask, 3, 1, True, False)
    assert info == {"id": 3, "category_id": 1, "is_thing": True, "is_crowd": False, "area": 13, "bbox": [7, 2, 4, 5]}
    with pytest.raises(ValueError, match="empty"):
        describe_segment(mask & False, 3, 1, True, False)


def naive_semantic_map(segments, infos, ignore):
    result = np.full(segments.shape, ignore, dtype=np.int64)
    for y, x in np.ndindex(*segments.shape):
        for info in infos:
            if info["id"] == segments[y, x] and info["category_id"] >= 0:
                result[y, x] = info["category_id"]
    return result


@pytest.mark.parametrize("ignore", [255, -1, 1000])
def test_semantic_map(ignore):
    record = three_segments(0)
    result = semantic_map(record["segments"], record["segments_info"], ignore)
    assert result.dtype == np.int64
    assert np.array_equal(result, naive_semantic_map(record["segments"], record["segments_info"], ignore))
    assert set(np.unique(result).tolist()) == {4, 2, ignore}  # 2 is a crowd and keeps its class
    assert np.array_equal(result, semantic_map(encode_segments(record["segments"]), record["segments_info"], ignore))


def test_semantic_map_refuses_contradictions():
    record = three_segments(0)
    with pytest.raises(ValueError, match=r"\[300\]"):
        semantic_map(record["segments"], [info for info in record["segments_info"] if info["id"] != 300])
    with pytest.raises(ValueError, match="ignore=4"):
        semantic_map(record["segments"], record["segments_info"], ignore=4)
    assert (semantic_map(np.zeros((2, 2), int), []) == 255).all()


def test_report_counts_lists_and_judges():
    report = ReaderReport(read=99, annotations_read=10)
    report.skip("a.jpg", "trun\ncated")
    report.check()
    assert report.skipped == [("a.jpg", "trun cated")] and "a.jpg: trun cated" in report.summary()
    report.skip("b.jpg", "gone")
    with pytest.raises(ValueError, match=r"2 of 101 images.*2\.0%(.|\n)*b\.jpg: gone"):
        report.check()
    report.check(max_fraction=0.02)
    report.skip_annotation("instance 5", "no polygon")
    with pytest.raises(ValueError, match=r"1 of 11 annotations(.|\n)*instance 5: no polygon"):
        report.check(max_fraction=0.05)
    with pytest.raises(ValueError, match="no image"):
        ReaderReport().check(max_fraction=1.0)
    report.skip_part("c\x1b[2J\u2028.jpg", "a" * 5000)
    assert r"c\x1b[2J .jpg: aaa" in report.summary() and len(report.summary().splitlines()[-1]) < 300


def test_scenes_of_another_version_of_the_world_are_refused(tmp_path):
    """Also where somebody's masks were drawn on them."""
    for name, creator in (("old", {"set": "icon-coco", "format": 1}), ("masks", {"source": {"format": 1}})):
        write_split([toy("p", scene())], tmp_path / name, creator=creator, progress=False)
        with pytest.raises(
            ValueError, match="got scenes of IconWorld's version 1 in .*, expected version 2; remove that"
        ):
            load_split(tmp_path / name)
    write_split([toy("p", scene())], tmp_path / "new", creator={"format": 2}, progress=False)
    assert len(load_split(tmp_path / "new")) == 1
