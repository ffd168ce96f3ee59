"""SA-1B's tar files: overlapping masks, turned images, and files that cannot be trusted."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from kit.public_sets import SIZE, add_member, sa1b
from ovs_lite.data.readers.mask_archives import iter_mask_archives
from ovs_lite.data.readers.reader_report import ReaderReport
from ovs_lite.data.record import load_split, write_split
from ovs_lite.data.rle import decode_rle, encode_rle, rle_area


def read(path):
    report = ReaderReport()
    return list(iter_mask_archives([path], report)), report


def test_area_of_a_mask_that_is_not_drawn_equals_its_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
        rle = encode_rle(mask)
        assert rle_area(rle, *mask.shape) == mask.sum() == rle_area({**rle, "counts": rle["counts"].encode()})


BAD_MASKS = {
    "no text": {"size": [4, 6], "counts": None},
    "another size": encode_rle(np.ones((6, 4), bool)),
    "a sum that is too small": {"size": [4, 6], "counts": [3, 4]},
    "empty": encode_rle(np.zeros((4, 6), bool)),
    "no RLE": [[0, 0, 3, 0, 3, 3]],
}


@pytest.mark.parametrize("what", BAD_MASKS)
def test_a_bad_mask_is_skipped_and_counted(tmp_path, what):
    good = np.zeros((4, 6), bool)
    good[1, 1:] = True
    records, report = read(sa1b(tmp_path / "a.tar", ["sa_1"], [BAD_MASKS[what], encode_rle(good)]))
    assert [decode_rle(rle).tolist() for rle in records[0]["masks"]] == [good.tolist()]
    assert report.annotations_read == 1 and report.annotations_skipped[0][0] == "sa_1, mask 0"


def test_lists_of_runs_become_text_and_are_written(tmp_path):
    records, _ = read(sa1b(tmp_path / "a.tar", ["sa_1"], [{"size": [4, 6], "counts": [0, 8, 16]}]))
    write_split(records, tmp_path / "split", columns="masks", progress=False)
    (record,) = load_split(tmp_path / "split")
    assert decode_rle(record["masks"][0]).sum(0).tolist() == [4, 4, 0, 0, 0, 0]


def test_masks_turn_with_their_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter to the right
    mask = np.zeros((4, 6), bool)
    mask[0, :3] = True
    (record,), _ = read(sa1b(tmp_path / "a.tar", ["sa_1"], [encode_rle(mask)], exif=exif))
    turned = decode_rle(record["masks"][0], 6, 4)
    assert np.array_equal(turned, np.rot90(mask, -1)) and Image.open(io.BytesIO(record["image"])).size == (4, 6)


def test_masks_of_the_upright_size_stay(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros((6, 4), bool)
    mask[0, :3] = True
    (record,), _ = read(sa1b(tmp_path / "a.tar", ["sa_1"], [encode_rle(mask)], exif=exif, stated=(4, 6)))
    assert np.array_equal(decode_rle(record["masks"][0], 6, 4), mask)


def test_members_without_partner_links_and_other_layouts(tmp_path):
    path = sa1b(tmp_path / "a.tar", ["sa_1"])
    with tarfile.open(path, "a") as archive:
        add_member(archive, "sa_2.jpg", b"no image")
        add_member(archive, "sa_3.jpg", b"no image")
        add_member(archive, "sa_3.json", b"{}")
        add_member(archive, "sa_4.json", json.dumps({"annotations": []}).encode())
        add_member(archive, "../sa_5.json", b"{}")
        add_member(archive, "notes.txt", b"")
        link = tarfile.TarInfo("sa_6.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    records, report = read(path)
    assert [record["image_id"] for record in records] == ["sa_1"]
    reasons = {name.partition("/")[2]: why for name, why in report.skipped}
    assert set(reasons) == {"sa_2", "sa_3", "sa_4", "../sa_5.json", "sa_6.jpg"}
    assert "only its image" in reasons["sa_2"] and "only its masks" in reasons["sa_4"]
    assert "a link" in reasons["sa_6.jpg"] and report.unused == {"txt": 1}


def test_a_json_of_another_image_is_noticed(tmp_path):
    path = tmp_path / "a.tar"
    stream = io.BytesIO()
    Image.new("RGB", SIZE).save(stream, "JPEG")
    with tarfile.open(path, "w") as archive:
        add_member(archive, "sa_1.jpg", stream.getvalue())
        add_member(archive, "sa_1.json", b'{"image": {"width": 9, "height": 4}, "annotations": []}')
    records, report = read(path)
    assert not records and "says 9 x 4 pixels, it has 6 x 4" in report.skipped[0][1]


def test_what_is_no_whole_tar_file_is_an_error(tmp_path):
    path = sa1b(tmp_path / "a.tar")
    content = path.read_bytes()
    at = content.index(b"./sa_2.jpg")
    header = content[:at] + b"?" + content[at + 1 :]
    for damaged in (content[:700], header, b"<html>link expired</html>" * 99):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.tar is no whole tar file"):
            read(path)
    with pytest.raises(FileNotFoundError, match="no tar file at"):
        read(tmp_path / "none.tar")
