"""The reader of label maps in the layout of ADE20K: on invented ones, on bad ones, and on real images."""

import struct
import zlib
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from kit.real_data import find_ade20k, found, iter_ade20k
from ovs_lite.data.readers.label_maps import read_label_map
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import load_vocabulary


def labels():
    values = np.zeros((20, 30), dtype=np.uint8)
    values[:8], values[12:, :10], values[12:, 20:] = 3, 150, 13
    return values


@pytest.fixture
def world(tmp_path):
    """Two good pairs, "a" and "b"."""
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    for stem in "ab":
        Image.new("RGB", (30, 20), "green").save(tmp_path / "images" / f"{stem}.jpg")
        Image.fromarray(labels()).save(tmp_path / "annotations" / f"{stem}.png")
    return tmp_path


def read(world):
    report = ReaderReport()
    records = list(iter_ade20k(world / "images", world / "annotations", report))
    return {record["image_id"]: record for record in records}, report


def test_zero_is_void_and_classes_move_down_by_one(world):
    records, report = read(world)
    assert list(records) == ["a", "b"] and report.read == 2 and report.segments == 6 and not report.skipped
    infos = records["a"]["segments_info"]
    assert [(info["category_id"], info["is_thing"], info["area"]) for info in infos] == [
        (2, False, 240),
        (12, True, 80),
        (149, True, 80),
    ]
    expected = np.where(labels() == 0, 255, labels().astype(int) - 1)
    assert np.array_equal(semantic_map(records["a"]["segments"], infos), expected)
    assert records["a"]["captions"] == []


def test_every_label_mode_gives_the_same_numbers(world):
    values = labels()
    palette = Image.new("P", (30, 20))
    palette.putdata(values.ravel().tolist())
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    for name, image in (("p", palette), ("deep", Image.fromarray(values.astype(np.uint16)))):
        image.save(world / f"{name}.png")
        assert np.array_equal(read_label_map(world / f"{name}.png"), values)


def packed_png(path, values, depth, colour):
    """A PNG written by hand, so that its samples have `depth` bits whatever an image library would choose."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    raw = b""
    for row in values:
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        raw += b"\0" + int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(3 * 2 ** min(depth, 8)))[: 3 * 2**depth]) if colour == 3 else b""
    body = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize(("depth", "colour"), [*((depth, 0) for depth in (1, 2, 4, 8, 16)), (1, 3), (2, 3), (4, 3)])
def test_numbers_of_every_depth_are_read_as_stored(tmp_path, depth, colour):
    highest = min(2**depth - 1, 150)
    values = np.arange(13 * 7).reshape(7, 13) % (highest + 1)
    path = packed_png(tmp_path / "x.png", values, depth, colour)
    found = read_label_map(path)
    assert found.dtype == np.int32 and np.array_equal(found, values)


def test_classes_of_four_bits_and_of_one_bit_become_records(world):
    values = np.zeros((20, 30), np.uint8)
    values[:8], values[12:, :10], values[12:, 20:] = 1, 3, 5
    packed_png(world / "annotations" / "a.png", values, 4, 0)
    Image.fromarray(values > 0).save(world / "annotations" / "b.png")
    records, report = read(world)
    areas = [{info["category_id"]: info["area"] for info in records[name]["segments_info"]} for name in "ab"]
    assert areas == [{0: 240, 2: 80, 4: 80}, {0: 400}] and not report.skipped


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "GIF"])
def test_other_formats_under_the_name_of_a_png_are_refused(tmp_path, form):
    Image.fromarray(labels()).save(tmp_path / "x.png", form)
    with pytest.raises(ValueError, match=f"got {form}, expected PNG"):
        read_label_map(tmp_path / "x.png")


def test_the_folders_of_the_release_are_read_as_they_unpack(world):
    for folder, suffix in (("images", "jpg"), ("annotations", "png")):
        for part, stem in (("training", "a"), ("validation", "b")):
            (world / folder / part).mkdir()
            (world / folder / f"{stem}.{suffix}").rename(world / folder / part / f"{stem}.{suffix}")
    (world / "annotations" / "training" / "folder.png").mkdir()
    records, report = read(world)
    assert list(records) == ["training/a", "validation/b"] and not report.skipped
    assert [
        record["image_id"] for record in iter_ade20k(world / "images/training", world / "annotations/training")
    ] == ["a"]
    assert write_split(records.values(), world / "out", progress=False)["count"] == 2


def test_of_a_subset_what_has_no_partner_is_counted_and_no_fault(world):
    (world / "images" / "a.jpg").unlink()
    report = ReaderReport()
    records = list(iter_ade20k(world / "images", world / "annotations", report, subset=True))
    assert [record["image_id"] for record in records] == ["b"] and (report.absent, report.skipped) == (1, [])
    report.check()
    assert "passed over, as in any subset: 1" in report.summary()


def test_folders_without_a_file_are_named(world):
    (world / "images" / "empty").mkdir()
    report = ReaderReport()
    assert not list(iter_ade20k(world / "images" / "empty", world / "annotations", report))
    with pytest.raises(ValueError, match="empty: no .jpg or .jpeg or .png file in it or below"):
        report.check()


def test_all_void_is_a_record_without_segments(world):
    Image.new("L", (30, 20)).save(world / "annotations" / "a.png")
    records, report = read(world)
    assert records["a"]["segments_info"] == [] and not report.skipped


FAULTS = {
    "no label": lambda w: (w / "annotations" / "a.png").unlink(),
    "no image": lambda w: (w / "images" / "a.jpg").unlink(),
    "label above 150": lambda w: Image.new("L", (30, 20), 151).save(w / "annotations" / "a.png"),
    "other size": lambda w: Image.new("L", (20, 30), 3).save(w / "annotations" / "a.png"),
    "colour label": lambda w: Image.new("RGB", (30, 20)).save(w / "annotations" / "a.png"),
    "html label": lambda w: (w / "annotations" / "a.png").write_text("<html>"),
    "cut label": lambda w: (w / "annotations" / "a.png").write_bytes((w / "annotations" / "a.png").read_bytes()[:70]),
    "empty image": lambda w: (w / "images" / "a.jpg").write_bytes(b""),
    "cut image": lambda w: (w / "images" / "a.jpg").write_bytes((w / "images" / "a.jpg").read_bytes()[:400]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_pairs_are_skipped_and_listed(world, fault):
    FAULTS[fault](world)
    records, report = read(world)
    assert list(records) == ["b"] and len(report.skipped) == 1
    assert report.skipped[0][0] == "a" and "a." in report.skipped[0][1]
    with pytest.raises(ValueError, match="1 of 2 images"):
        report.check()


def test_a_second_image_of_the_same_stem_is_listed(world):
    Image.new("RGB", (30, 20)).save(world / "images" / "a.png")
    records, report = read(world)
    assert list(records) == ["a", "b"] and report.skipped == [("a.png", "a.jpg has the same stem and counts")]


def test_label_maps_turn_with_their_image(world):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 20)).save(world / "images" / "a.jpg", exif=exif)
    records, report = read(world)
    assert not report.skipped and np.array_equal(records["a"]["segments"], np.rot90(labels()))


def test_missing_folder(world):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(iter_ade20k(world / "nowhere", world / "annotations"))


@pytest.mark.real
def test_real_images(tmp_path):
    """The first 20 images on disk of any subset of ADE20K's 150-class release."""
    images, annotations = found(find_ade20k, "ADE20K's 150-class release")[0]
    report, vocabulary = ReaderReport(), load_vocabulary("ade150")
    write_split(islice(iter_ade20k(images, annotations, report, subset=True), 20), tmp_path / "ade", progress=False)
    report.check()
    stems = [
        {path.relative_to(folder).with_suffix("") for path in folder.rglob("*.*g")} for folder in (images, annotations)
    ]
    assert report.read == min(20, len(stems[0] & stems[1])) and not report.skipped
    names = set()
    for row in load_split(tmp_path / "ade"):
        with Image.open(annotations / f"{row['image_id']}.png") as image:
            stored = np.array(image).astype(int)
        expected = np.where(stored == 0, 255, stored - 1)
        assert np.array_equal(semantic_map(row["segments"], row["segments_info"]), expected)
        names |= {vocabulary.names[info["category_id"]] for info in row["segments_info"]}
    assert names & {"sky", "wall", "floor", "building", "tree"}
