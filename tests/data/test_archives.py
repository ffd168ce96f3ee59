"""Archives of strangers: what is unpacked lies in its folder, whole, and nothing lies anywhere else."""

import errno
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from ovs_lite.data.archives import unpack

GOOD = {"a/b/one.txt": b"one", "a/two.txt": b"two" * 1000, "three.txt": b""}


def make_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_info(name, kind=tarfile.REGTYPE, target="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def make_tar(path, members, mode="w"):
    """members: (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tar_info(name, size=len(content)) if isinstance(name, str) else name
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder):
    """Every path below a folder with its content, links as such."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def place(tmp_path):
    """A folder to unpack to, which holds something, with neighbours that must not change."""
    (tmp_path / "outside.txt").write_text("outside")
    (tmp_path / "target" / "a").mkdir(parents=True)
    (tmp_path / "target" / "a" / "old.txt").write_text("old")
    return tmp_path / "target"


MAKERS = {
    "zip": lambda path, members: make_zip(path, members),
    "tar": lambda path, members: make_tar(path, members),
    "tar.gz": lambda path, members: make_tar(path, members, "w:gz"),
    "tar.xz": lambda path, members: make_tar(path, members, "w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_files_come_out_as_they_went_in(tmp_path, place, kind):
    archive = MAKERS[kind](tmp_path / f"x.{kind}", GOOD.items())
    for _ in range(2):  # a second time replaces
        assert unpack(archive, place, progress=False) == 3
        found = {name: content for name, content in tree(place).items() if content is not None}
        assert found == GOOD | {"a/old.txt": b"old"}


def test_a_dot_in_front_folders_and_what_macos_adds(tmp_path, place):
    members = [("./a/one.txt", b"1"), ("__MACOSX/a/._one.txt", b"x"), ("a/.DS_Store", b"x"), ("empty/", b"")]
    assert unpack(make_zip(tmp_path / "x.zip", members), place, progress=False) == 1
    assert sorted(tree(place)) == ["a", "a/old.txt", "a/one.txt"]


def symlinked_zip(path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return make_zip(path, [("good.txt", b"x"), (info, b"../outside.txt")])


def nul_zip(path):
    make_zip(path, [("good.txt", b"x"), ("evil_.txt", b"x")])
    path.write_bytes(path.read_bytes().replace(b"evil_", b"evil\0"))
    return path


def lying_zip(path):
    """The central directory says 5 bytes, the content is longer."""
    make_zip(path, [("a.txt", b"x" * 4096)], zipfile.ZIP_STORED)
    content = path.read_bytes()
    at = content.index(b"PK\1\2")
    path.write_bytes(content[: at + 20] + (5).to_bytes(4, "little") * 2 + content[at + 28 :])
    return path


HOSTILE = {
    "zip up": lambda path: make_zip(path, [("good.txt", b"x"), ("../outside.txt", b"evil")]),
    "zip deep up": lambda path: make_zip(path, [("a/../../outside.txt", b"evil")]),
    "zip absolute": lambda path: make_zip(path, [("/tmp/evil.txt", b"evil")]),
    "zip backslash": lambda path: make_zip(path, [("..\\outside.txt", b"evil")]),
    "zip drive": lambda path: make_zip(path, [("C:/evil.txt", b"evil")]),
    "zip newline": lambda path: make_zip(path, [("a\n\x1b[2J.txt", b"evil")]),
    "zip link": symlinked_zip,
    "zip NUL": nul_zip,
    "zip lies": lying_zip,
    "zip case": lambda path: make_zip(path, [("a/x.txt", b"1"), ("a/X.txt", b"2")]),
    "zip folder case": lambda path: make_zip(path, [("a/x.txt", b"1"), ("A/y.txt", b"2")]),
    "zip file as folder": lambda path: make_zip(path, [("x", b"1"), ("x/y.txt", b"2")]),
    "zip folder as file": lambda path: make_zip(path, [("x/y.txt", b"2"), ("x", b"1")]),
    "zip bomb": lambda path: make_zip(path, [("zeros", bytes(30_000_000))]),
    "zip damaged": lambda path: path.write_bytes(make_zip(path, [("a", os.urandom(99))]).read_bytes()[:60]),
    "zip crc": lambda path: path.write_bytes(
        make_zip(path, [("a", b"hello hello")], zipfile.ZIP_STORED).read_bytes().replace(b"hello", b"hellO", 1)
    ),
    "tar up": lambda path: make_tar(path, [("good.txt", b"x"), ("../outside.txt", b"evil")]),
    "tar absolute": lambda path: make_tar(path, [("/tmp/evil.txt", b"evil")]),
    "tar link": lambda path: make_tar(
        path, [(tar_info("l", tarfile.SYMTYPE, "../outside.txt"), b""), ("l/x", b"evil")]
    ),
    "tar hard link": lambda path: make_tar(path, [("a.txt", b"x"), (tar_info("l", tarfile.LNKTYPE, "a.txt"), b"")]),
    "tar device": lambda path: make_tar(path, [(tar_info("d", tarfile.CHRTYPE), b"")]),
    "tar pipe": lambda path: make_tar(path, [(tar_info("p", tarfile.FIFOTYPE), b"")]),
    "tar truncated": lambda path: path.write_bytes(make_tar(path, [("a", b"x" * 5000)]).read_bytes()[:3000]),
    "tar damaged": lambda path: path.write_bytes(
        make_tar(path, [("a", b"x" * 100), ("b", b"y")]).read_bytes().replace(b"b\0\0\0", b"c\0\0\0", 1)
    ),
    "tar.gz truncated": lambda path: path.write_bytes(
        make_tar(path, [("a", os.urandom(50_000))], "w:gz").read_bytes()[:30_000]
    ),
    "tar.gz bomb": lambda path: make_tar(path, [("zeros", bytes(30_000_000))], "w:gz"),
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"<html>please log in</html>" * 100),
    "no member": lambda path: make_zip(path, []),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_or_damaged_archive_writes_nothing(tmp_path, place, how):
    path = tmp_path / "x.bin"
    HOSTILE[how](path)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"x\.bin"):
        unpack(path, place, progress=False)
    assert tree(tmp_path) == before and not os.path.exists("/tmp/evil.txt")


def test_a_link_in_the_way_is_not_followed(tmp_path, place):
    (tmp_path / "elsewhere").mkdir()
    (place / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ValueError, match="images is in the way"):
        unpack(make_zip(tmp_path / "x.zip", [("aaa/x", b"x"), ("images/a.txt", b"x")]), place, progress=False)
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (place / "aaa").exists(), "nothing is half done"


def test_a_tar_that_ends_with_a_zip_is_a_tar_and_a_name_of_a_dot_is_none(tmp_path, place):
    inner = make_zip(tmp_path / "inner.zip", [("inner.txt", b"x")], zipfile.ZIP_STORED).read_bytes()
    outer = make_tar(tmp_path / "x.tar", [("a.txt", b"a"), ("inner.zip", inner)])
    assert unpack(outer, place, progress=False) == 2 and (place / "inner.zip").read_bytes() == inner
    with pytest.raises(ValueError, match="member '.' is no name"):
        unpack(make_zip(tmp_path / "y.zip", [(".", b"x")]), place, progress=False)


def test_two_processes_do_not_unpack_one_archive_into_one_folder_at_once(tmp_path, place):
    archive = make_zip(tmp_path / "x.zip", GOOD.items())
    hold = (
        "import sys; from ovs_lite.locks import exclusive\n"
        f"with exclusive({str(place)!r}, '.x.zip.unpack.lock'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="works there"):
            unpack(archive, place, progress=False)
        assert not (place / "three.txt").exists()
        other.stdin.close()
    assert unpack(archive, place, progress=False) == 3


def test_errors_of_our_own_are_not_taken_for_damage(tmp_path, place, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault in the kit")

    monkeypatch.setattr("ovs_lite.data.archives._write", broken)
    with pytest.raises(RuntimeError, match="a fault in the kit"):
        unpack(make_zip(tmp_path / "x.zip", GOOD.items()), place, progress=False)


def test_more_than_allowed_and_more_members_than_allowed(tmp_path, place, monkeypatch):
    archive = make_zip(tmp_path / "x.zip", [(str(n), b"12345") for n in range(10)])
    assert unpack(archive, place, 50, progress=False) == 10
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="at most .* 49 bytes"):
        unpack(archive, place, 49, progress=False)
    monkeypatch.setattr("ovs_lite.data.archives.MAX_MEMBERS", 9)
    with pytest.raises(ValueError, match="at most 9 files"):
        unpack(archive, place, 50, progress=False)
    assert tree(tmp_path) == before


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_hundred_thousand_members_come_out_and_one_that_leaves_the_folder_undoes_them_all(tmp_path, place, kind):
    members = [(f"{n % 100}/{n}.txt", b"") for n in range(100_000)]
    assert unpack(MAKERS[kind](tmp_path / "x.bin", members), place, progress=False) == 100_000
    before = len(tree(tmp_path))
    assert before == 100_000 + 100 + 5
    with pytest.raises(ValueError, match=r"x\.bin"):
        unpack(MAKERS[kind](tmp_path / "x.bin", [*members, ("../outside.txt", b"evil")]), place, progress=False)
    assert len(tree(tmp_path)) == before and (tmp_path / "outside.txt").read_text() == "outside"


def test_a_disk_that_is_full_leaves_nothing_half_unpacked(tmp_path, place, monkeypatch):
    archive = make_zip(tmp_path / "x.zip", [(str(n), os.urandom(1000)) for n in range(10)])
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("ovs_lite.files.shutil.disk_usage", lambda _: SimpleNamespace(free=9999))
        with pytest.raises(OSError, match="10000 bytes needed, 9999 free") as failure:
            unpack(archive, place, progress=False)
    assert failure.value.errno == errno.ENOSPC and tree(tmp_path) == before
    taken = []

    def limited(path, mode):
        taken.append(path)
        if len(taken) > 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return open(path, mode)

    monkeypatch.setattr("ovs_lite.data.archives.open", limited, raising=False)
    with pytest.raises(OSError):
        unpack(archive, place, progress=False)
    assert len(taken) == 6 and tree(tmp_path) == before


def test_what_a_killed_call_left_is_removed(tmp_path, place):
    archive = make_zip(tmp_path / "x.zip", GOOD.items())
    (place / ".unpacking-x.zip" / "half").mkdir(parents=True)
    assert unpack(archive, place, progress=False) == 3
    assert not (place / ".unpacking-x.zip").exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damage_anywhere_is_an_error_or_the_same_files(tmp_path, kind):
    """200 archives with one flipped bit: refused by name, or harmless (dates and the like); never a wrong byte."""
    members = [(f"folder/{n}.bin", os.urandom(700)) for n in range(5)]
    whole = MAKERS[kind](tmp_path / "x.bin", members).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for number in range(200):
        content, at = bytearray(whole), int(rng.integers(len(whole)))
        content[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "x.bin").write_bytes(content)
        target = tmp_path / f"t{number}"
        try:
            unpack(tmp_path / "x.bin", target, progress=False)
        except ValueError as error:
            refused += 1
            assert "x.bin" in str(error) and (not target.exists() or not list(target.iterdir()))
        else:
            found = sorted(path.read_bytes() for path in target.rglob("*") if path.is_file())
            assert kind == "tar" or found == sorted(content for _, content in members)
    assert refused > (0 if kind == "tar" else 100)  # a plain tar file has no checksums of its contents


KILLED = """
import os, signal
from ovs_lite.data import archives
plain, calls = archives.{name}, []
def dying(*arguments):
    calls.append(0)
    if len(calls) > {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments)
archives.{name} = dying
archives.unpack({path!r}, {folder!r}, progress=False)
"""


@pytest.mark.parametrize(("name", "after"), [("_write", 0), ("_write", 7), ("_move_into", 0), ("_move_into", 1)])
def test_a_killed_process_leaves_no_half_a_folder_and_the_next_call_finishes(tmp_path, place, name, after):
    members = {f"new/{n}.txt": b"x" * n for n in range(10)} | {f"a/{n}.txt": b"y" * n for n in range(10)}
    archive = make_zip(tmp_path / "x.zip", members.items())
    code = KILLED.format(name=name, after=after, path=str(archive), folder=str(place))
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == -9, outcome.stderr
    assert not (place / "new").exists() or len(list((place / "new").iterdir())) == 10
    assert (place / "a" / "old.txt").read_text() == "old"
    assert unpack(archive, place, progress=False) == 20
    found = {key: content for key, content in tree(place).items() if content is not None}
    assert found == members | {"a/old.txt": b"old"}
