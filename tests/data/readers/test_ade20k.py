"""The ADE20K reader on invented label maps, on bad ones, and on three real pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovs_lite.data.readers.ade20k import iter_ade20k, read_label_map
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.segments import semantic_map
from ovs_lite.data.vocabulary import load_vocabulary

REAL = os.environ.get("OVS_REAL_DATA")


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
    with pytest.raises(ValueError, match="1 of 2 pictures"):
        report.check()


def test_a_second_picture_of_the_same_stem_is_listed(world):
    Image.new("RGB", (30, 20)).save(world / "images" / "a.png")
    records, report = read(world)
    assert list(records) == ["a", "b"] and report.skipped == [("a.png", "a.jpg has the same stem and counts")]


def test_label_maps_turn_with_their_picture(world):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 20)).save(world / "images" / "a.jpg", exif=exif)
    records, report = read(world)
    assert not report.skipped and np.array_equal(records["a"]["segments"], np.rot90(labels()))


def test_missing_folder(world):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(iter_ade20k(world / "nowhere", world / "annotations"))


@pytest.mark.skipif(not REAL, reason="set OVS_REAL_DATA to the folder with coco-mini and ade20k")
def test_three_real_pictures(tmp_path):
    folder, report, vocabulary = Path(REAL) / "ade20k", ReaderReport(), load_vocabulary("ade150")
    write_split(iter_ade20k(folder / "images", folder / "annotations", report), tmp_path / "ade", progress=False)
    report.check()
    assert report.read == 3 and not report.skipped
    for row in load_split(tmp_path / "ade"):
        with Image.open(folder / "annotations" / f"{row['image_id']}.png") as image:
            stored = np.array(image).astype(int)
        expected = np.where(stored == 0, 255, stored - 1)
        assert np.array_equal(semantic_map(row["segments"], row["segments_info"]), expected)
        names = {vocabulary.names[info["category_id"]] for info in row["segments_info"]}
        assert names & {"sky", "wall", "floor", "building", "tree"}
