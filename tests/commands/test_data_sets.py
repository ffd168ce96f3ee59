"""`ovs-lite data prepare | verify | list` of public sets, on tiny files of the real layout."""

import pytest

from kit.public_sets import pairs, voc
from ovs_lite.cli import main
from ovs_lite.commands.data_sets import duration, readable
from ovs_lite.data import catalogue, prepare


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_what_was_skipped_is_listed_before_the_error_of_one_line(tmp_path, capsys):
    root = voc(tmp_path / "voc", listed=["2007_000032", "2007_000033", "2007_000034"])
    code, printed = run(capsys, "prepare", "voc20", "--from", root, "--splits", "val")
    *listed, error = [line for line in printed.splitlines() if "images read" in line or line[:2] in ("  ", "ov")]
    assert code == 2 and error.startswith("ovs-lite: 1 of 3 images are unusable") and error.endswith("--max-skipped")
    assert listed[0].startswith("2 images read, 1 skipped") and "  skipped image " in listed[1]


def test_prepare_then_verify_counts_and_digests(tmp_path, capsys, own_data):
    root = voc(tmp_path / "voc")
    code, printed = run(capsys, "verify", "voc20")
    assert code == 2 and "not prepared; see: ovs-lite data prepare voc20" in printed
    code, printed = run(capsys, "prepare", "voc20", "--from", root, "--splits", "val", "--limit", 1)
    assert code == 0 and f"{own_data / 'voc20' / 'val'}: 1 records" in printed
    assert run(capsys, "verify", "voc20") == (0, f"ok    {own_data / 'voc20' / 'val'}: 1 records, a part\n")
    assert "there already" in run(capsys, "prepare", "voc20", "--from", root, "--splits", "val", "--limit", 1)[1]
    listed = [line for line in run(capsys, "list")[1].splitlines() if line.startswith("voc20 ")]
    assert len(listed) == 1 and " val " in listed[0] and "not prepared" not in listed[0]
    code, printed = run(capsys, "prepare", "voc20", "--from", root)
    assert code == 0 and printed.count(": 2 records") == 2
    code, printed = run(capsys, "verify", "voc20")
    assert code == 1 and "has 2 records, expected 1449" in printed and "expected 1464" in printed
    (arrow,) = (own_data / "voc20" / "val").glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    code, printed = run(capsys, "verify", "voc20")
    assert code == 1 and "differs from its sha256" in printed


def test_a_job_says_what_it_made_and_what_is_missing(tmp_path, capsys, monkeypatch, own_data):
    monkeypatch.setattr(prepare, "IMAGES", 1)
    asked = ("prepare", "voc20", "--from", voc(tmp_path / "voc"), "--splits", "val")
    folder = own_data / "voc20" / "val"
    code, printed = run(capsys, *asked, "--part", "2/2")
    assert code == 0 and f"{folder}: made part 2/2, 1 images of 2\n" in printed and "records" not in printed
    code, printed = run(capsys, *asked, "--merge", 2)
    assert code == 2 and "missing: --part 1/2; run these again" in printed
    assert run(capsys, *asked, "--part", "1/2")[0] == 0
    assert f"{folder}: 2 records" in run(capsys, *asked, "--merge", 2)[1]


def test_a_whole_split_is_said_to_be_whole(tmp_path, capsys, monkeypatch, own_data):
    content = catalogue.CATALOGUE.read_text().replace("count: 1449", "count: 2")
    path = tmp_path / "catalogue.yaml"
    path.write_text(content)
    monkeypatch.setattr(catalogue, "CATALOGUE", path)
    assert run(capsys, "prepare", "voc20", "--from", voc(tmp_path), "--splits", "val")[0] == 0
    assert run(capsys, "verify", "voc20") == (0, f"ok    {own_data / 'voc20' / 'val'}: 2 records, all that there are\n")


def test_verify_sees_shards_that_changed(tmp_path, capsys):
    shard = pairs(tmp_path / "cc" / "00000.tar")
    assert run(capsys, "prepare", "cc12m", "--from", shard.parent)[0] == 0
    code, printed = run(capsys, "verify", "cc12m")
    assert code == 0 and "3 pairs (0.0% of 12423374 links) in 1 shards, list " in printed
    pairs(shard, ["a cat"])
    code, printed = run(capsys, "verify", "cc12m")
    assert code == 1 and "1 shards are missing or changed" in printed


def test_what_get_would_ignore_is_refused_and_unknown_sizes_are_no_verdict(tmp_path, capsys, own_data):
    links = tmp_path / "links.txt"
    links.write_text("")
    for words, message in (
        (("voc20", "--limit", "3"), "--limit 3 without --links"),
        (("sa1b", "--links", str(links), "--limit", "0"), "expected no --discard, and 1 or more"),
        (("sa1b", "--links", str(links), "--discard"), "expected no --discard"),
    ):
        code, printed = run(capsys, "get", *words)
        assert code == 2 and message in printed
    code, printed = run(capsys, "plan", "cc3m")
    assert code == 0 and "not known whether that is enough" in printed and "an unknown time to prepare" in printed


def test_mistakes_are_one_line_and_code_2(tmp_path, capsys):
    for words, told in (
        (["prepare", "voc"], "voc20"),
        (["prepare", "voc20"], "ovs-lite data get voc20"),
        (["prepare", "voc20", "--from", tmp_path, "--limit", 0], "got --limit 0, expected at least 1"),
        (["get", "imagenet"], "expected one of"),
        (["plan", "--rate", 0], "got a rate of 0"),
        (["get", "voc20", "voc21", "--links", tmp_path], "expected one"),
        (["get", "voc20", "--links", tmp_path], "takes no --links"),
    ):
        code, printed = run(capsys, *words)
        assert code == 2 and told in printed and printed.count("\n") == 1, printed


def test_amounts_in_words():
    assert [readable(n) for n in (0, 999, 1000, 19336861798, 1.8e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "19.3 GB",
        "1.8 TB",
    ]
    assert [duration(s) for s in (0, 20, 3540, 3600, 7500)] == ["0 min", "1 min", "59 min", "1 h 0 min", "2 h 5 min"]
