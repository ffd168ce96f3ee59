"""Captions in lines, good and bad."""

import json

import pytest

from kit.public_sets import picture
from ovs_lite.data.readers.narratives import iter_narratives
from ovs_lite.data.readers.reader_report import ReaderReport


def read(tmp_path, text, name="a.jsonl", **options):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    report = ReaderReport()
    return list(iter_narratives(tmp_path, [tmp_path / name], report=report, **options)), report


def test_several_people_describe_one_image(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
    lines = [{"image_id": image, "caption": f"  text {n}\nof {image} "} for n, image in enumerate("bab")]
    records, report = read(tmp_path, "\n\n".join(map(json.dumps, lines)))
    found = [(record["image_id"], record["captions"]) for record in records]
    assert found == [("b", ["text 0 of b", "text 2 of b"]), ("a", ["text 1 of a"])]
    assert (report.read, report.annotations_read) == (2, 3)


BAD = [
    '{"image_id": "a"', "[]", "null", '{"caption": "no image"}', '{"image_id": "a"}',
    '{"image_id": "a", "caption": "  "}',
    '{"image_id": "a", "caption": 5}', '{"image_id": true, "caption": "x"}', '{"image_id": " ", "caption": "x"}',
    "[" * 100_000,
]  # fmt: skip


def test_bad_lines_are_counted_and_named(tmp_path):
    picture(tmp_path / "a.jpg")
    records, report = read(tmp_path, "\n".join([*BAD, '{"image_id": "a", "caption": "good \U0001f600 \u05d0"}']))
    assert [record["captions"] for record in records] == [["good \U0001f600 \u05d0"]]
    assert len(report.annotations_skipped) == len(BAD)
    assert report.annotations_skipped[0][0] == "a.jsonl, line 1"
    with pytest.raises(ValueError, match="10 of 11 annotations are unusable"):
        report.check()


def test_names_that_leave_the_folder_are_no_images(tmp_path):
    picture(tmp_path.parent / "outside.jpg")
    records, report = read(tmp_path, '{"image_id": "../outside", "caption": "x"}')
    assert not records and "without '..'" in report.skipped[0][1]


def test_tsv_and_absent_images(tmp_path):
    picture(tmp_path / "a.jpg")
    records, report = read(tmp_path, "a\ta cat\r\nb\ta dog\nno tab\n", "a.tsv", subset=True)
    assert [record["captions"] for record in records] == [["a cat"]]
    assert report.absent == 1 and report.annotations_skipped[0][1] == "no tab between image id and caption"
    with pytest.raises(FileNotFoundError, match="no file of captions"):
        list(iter_narratives(tmp_path, [tmp_path / "none.jsonl"]))
