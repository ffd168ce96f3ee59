"""The catalogue holds together, and what it names is brought, unpacked, and not brought again; from loopback only."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import yaml

from kit.file_server import Behaviour, serving
from ovs_lite.cli import main
from ovs_lite.data import catalogue as module
from ovs_lite.data.acquire import HERE, MISSING, state_of
from ovs_lite.data.catalogue import load_catalogue
from ovs_lite.data.vocabulary import load_vocabulary
from ovs_lite.methods.registry import RECIPES

ROOT = Path(__file__).resolve().parents[2]
ASKED_FOR = {
    "coco", "coco-val", "coco-panoptic", "coco-stuff", "coco-object", "localized-narratives", "ade150", "ade847",
    "voc20", "voc21", "context59", "context60", "context459", "cityscapes", "cc3m", "cc12m", "sa1b",
}  # fmt: skip


def test_the_catalogue_holds_every_set_and_names_what_exists():
    catalogue = load_catalogue()
    assert set(catalogue.sets) == ASKED_FOR
    for one in catalogue.sets.values():
        assert one.needed_by, one.name
        folders = set(one.needed_by) - {*RECIPES, "evaluate"}
        assert all(list((ROOT / folder).glob("*.ipynb")) for folder in folders), one.name
        assert one.licence and one.page.startswith("http") and one.splits
        assert one.vocabulary is None or load_vocabulary(one.vocabulary).name == one.vocabulary
    used = {name for one in catalogue.sets.values() for name in one.files}
    assert used == set(catalogue.files), "every file belongs to a set"


def test_sizes_and_digests_are_of_the_right_form_and_have_evidence():
    for name, file in load_catalogue().files.items():
        assert file.evidence and (file.bytes is None or file.bytes > 1000), name
        for digest, letters in ((file.sha256, 64), (file.md5, 32)):
            assert digest is None or len(digest) == letters and set(digest) <= set("0123456789abcdef"), name
        known = file.bytes or file.sha256 or file.md5
        assert not known or file.evidence.startswith(("tfds", "torchvision")), f"{name}: who says so?"
        assert file.url or file.steps, name


def test_sets_behind_a_login_are_not_downloaded():
    catalogue = load_catalogue()
    for name in ("ade847", "cityscapes", "sa1b", "cc3m", "cc12m"):
        assert all(file.url is None and file.steps for file in catalogue.files_of(catalogue.find(name)))


WRONG = {
    "unknown key": (("files", "a", "sise"), 3, "sise"),
    "leaves its folder": (("files", "a", "gives"), ["../x"], "inside its folder"),
    "absolute": (("files", "a", "unpack"), "/tmp", "inside its folder"),
    "neither": (("files", "a", "url"), None, "url or steps"),
    "reader": (("sets", "tiny", "reader"), "magic", "reader"),
    "file": (("sets", "tiny", "files"), ["b"], "file"),
    "split": (("sets", "tiny", "splits"), {"val": {"count": 1, "imagse": "x"}}, "split val"),
    "no count": (("sets", "tiny", "splits"), {"val": {"images": "x", "maps": "y"}}, "split val"),
}


def archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("tiny/images/a.jpg", b"image")
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as nested:
            nested.writestr("maps/a.png", b"map")
        made.writestr("tiny/maps.zip", inner.getvalue())
    return stream.getvalue()


def tiny(address, content, **file):
    entry = {
        "folder": "tiny", "url": f"{address}/a.zip", "bytes": len(content), "unpack": ".", "evidence": "a test",
        "sha256": hashlib.sha256(content).hexdigest(), "nested": ["tiny/maps.zip"],
        "gives": ["tiny/images/*.jpg", "tiny/maps"],
    }  # fmt: skip
    one = {
        "title": "a tiny set", "page": "http://localhost", "licence": "none", "folder": "tiny", "files": ["a"],
        "reader": "label_maps", "vocabulary": "ade150", "needed_by": ["evaluate"],
        "splits": {"val": {"count": 1, "images": "tiny/images", "maps": "tiny/maps"}},
    }  # fmt: skip
    return {"files": {"a": entry | file}, "sets": {"tiny": one}}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(server's behaviour, data folder, a call that writes the catalogue) with a catalogue of one set on loopback."""
    monkeypatch.setenv("OVS_DATA", str(tmp_path / "data"))
    does = Behaviour({"/a.zip": archive()})
    with serving(does) as address:
        path = tmp_path / "catalogue.yaml"

        def write(**file):
            path.write_text(yaml.safe_dump(tiny(address, does.files["/a.zip"], **file)))
            module._load.cache_clear()

        write()
        monkeypatch.setattr(module, "CATALOGUE", path)
        yield does, tmp_path / "data" / "downloads" / "tiny", write
    module._load.cache_clear()


@pytest.mark.parametrize("how", WRONG)
def test_a_catalogue_that_does_not_hold_together_is_refused(tmp_path, how):
    (kind, name, key), value, told = WRONG[how]
    content = tiny("http://localhost", b"")
    content[kind][name][key] = value
    path = tmp_path / f"{how}.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=told):
        load_catalogue(path)


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_get_downloads_unpacks_and_does_nothing_the_second_time(world, capsys):
    does, folder, _ = world
    assert state_of(load_catalogue().files["a"]) == MISSING
    code, printed = run(capsys, "get", "tiny")
    assert code == 0 and "2 files unpacked" in printed
    assert (folder / "tiny" / "images" / "a.jpg").read_bytes() == b"image"
    assert (folder / "tiny" / "maps" / "a.png").read_bytes() == b"map" and not (folder / "tiny" / "maps.zip").exists()
    assert state_of(load_catalogue().files["a"]) == HERE
    code, printed = run(capsys, "get", "tiny")
    assert code == 0 and "there already" in printed and len(does.asked) == 1


def test_discard_removes_the_archive_and_it_is_not_missed(world, capsys):
    does, folder, _ = world
    assert run(capsys, "get", "tiny", "--discard")[0] == 0 and not (folder / "a.zip").exists()
    assert run(capsys, "get", "tiny")[0] == 0 and len(does.asked) == 1


def test_a_cut_download_a_wrong_digest_and_a_wrong_archive(world, capsys):
    does, folder, write = world
    does.cut_after, does.cuts = 100, 1
    write(sha256="0" * 64)
    code, printed = run(capsys, "get", "tiny")
    assert code == 2 and "expected 0000" in printed and not (folder / "a.zip").exists()
    write(gives=["somewhere/else"])
    code, printed = run(capsys, "get", "tiny")
    assert code == 2 and "does not hold somewhere/else" in printed and not (folder / ".got").exists()


def test_an_archive_that_leaves_its_folder_is_refused_after_download(world, capsys, tmp_path):
    does, folder, write = world
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("../../../escaped.txt", b"evil")
    does.files["/a.zip"] = stream.getvalue()
    write()
    code, printed = run(capsys, "get", "tiny")
    assert code == 2 and "leaves the folder" in printed and not list(tmp_path.rglob("escaped.txt"))


def test_what_only_the_user_can_bring_is_said_and_then_used(world, capsys):
    does, folder, write = world
    write(url=None, name="a.zip", steps="Sign the licence.")
    code, printed = run(capsys, "get", "tiny")
    assert code == 1 and "TO DO" in printed and "Sign the licence." in printed and not does.asked
    assert f"put a.zip into {folder}" in printed and "http://localhost" in printed
    folder.mkdir(parents=True)
    (folder / "a.zip").write_bytes(archive())
    code, printed = run(capsys, "get", "tiny")
    assert code == 0 and "2 files unpacked" in printed


def test_files_that_the_user_unpacked_are_taken_as_they_are(world, capsys):
    does, folder, _ = world
    (folder / "tiny" / "images").mkdir(parents=True)
    (folder / "tiny" / "images" / "a.jpg").write_bytes(b"")
    (folder / "tiny" / "maps").mkdir()
    assert run(capsys, "get", "tiny")[0] == 0 and not does.asked


def test_links_that_were_given_are_downloaded(world, capsys, tmp_path):
    does, folder, write = world
    write(url=None, name="sa_*.tar", steps="Sign.", unpack=None, gives=["sa_*.tar"], nested=[], sha256=None, bytes=None)
    does.files |= {f"/{n}?sign=x": bytes([n]) * 100 for n in range(3)}
    with serving(does) as address:
        links = tmp_path / "links.txt"
        lines = [f"sa_00000{n}.tar\t{address}/{n}?sign=x" for n in range(3)]
        links.write_text("\n".join(["file_name\tcdn_link", *lines]))
        code, printed = run(capsys, "get", "tiny", "--links", links, "--limit", 2)
        assert code == 0 and printed.count("downloaded") == 2
        assert sorted(path.name for path in folder.iterdir()) == ["sa_000000.tar", "sa_000001.tar"]
        assert (folder / "sa_000001.tar").read_bytes() == b"\1" * 100
        links.write_text(f"../sa_0.tar\t{address}/0?sign=x")
        code, printed = run(capsys, "get", "tiny", "--links", links)
        assert code == 2 and "expected a name like sa_*.tar" in printed


def test_plan_says_what_is_missing_and_what_it_takes(world, capsys, monkeypatch):
    does, folder, write = world
    write(bytes=30_000_000_000)
    code, printed = run(capsys, "plan", "tiny", "--rate", 100)
    assert code == 0 and "missing   a.zip (30.0 GB, to download)" in printed
    assert (
        "5 min to download at 100 MB/s" in printed
        and "licence   none" in printed
        and "state     not prepared" in printed
    )
    # the download, about as much unpacked, about as much prepared, and once more while that is written
    assert "together: 120.0 GB where sizes are known" in printed
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 119_000_000_000}))
    assert "NOT ENOUGH" in run(capsys, "plan", "tiny")[1]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 121_000_000_000}))
    assert "NOT ENOUGH" not in run(capsys, "plan", "tiny")[1]
    write(bytes=None)
    assert "an unknown time to download" in run(capsys, "plan", "tiny")[1]
    code, printed = run(capsys, "plan", "tinny")
    assert code == 2 and "tiny" in printed


def test_plan_says_how_many_pairs_survive(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OVS_DATA", str(tmp_path))
    code, printed = run(capsys, "plan", "cc12m", "cc3m")
    assert code == 0 and "about 7702492 of 12423374 links (62%)" in printed and "40 to 72 %" in printed
