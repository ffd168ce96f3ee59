"""Downloads from a server on loopback: resumed, checked, and whole or not there at all."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from kit.file_server import Behaviour, serving
from ovs_lite.data.download import Expected, download
from ovs_lite.files import file_digest

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
RIGHT = Expected(len(CONTENT), "sha256", SHA256)
CUT = 70_000


class World(SimpleNamespace):
    """does: the server's behaviour. path: the file's place. pauses: waited between tries."""

    def fetch(self, expected=RIGHT, name="a.zip", pause=None):
        return download(f"{self.address}/{name}", self.path, expected, False, pause or self.pauses.append)

    def around(self):
        return sorted(file.name for file in self.path.parent.iterdir() if file != self.path)


@contextmanager
def world(tmp_path, **behaviour):
    does = Behaviour({"/a.zip": CONTENT}, **behaviour)
    with serving(does) as address:
        yield World(does=does, address=address, path=tmp_path / "a.zip", pauses=[])


def test_a_file_comes_once(tmp_path):
    with world(tmp_path) as here:
        assert here.fetch() is True and here.path.read_bytes() == CONTENT
        assert here.fetch() is False and len(here.does.asked) == 1 and not here.pauses
        assert here.around() == [] and file_digest(here.path) == SHA256


@pytest.mark.parametrize("expected", [RIGHT, Expected()], ids=["known", "unknown"])
def test_a_cut_connection_resumes_where_it_broke(tmp_path, expected):
    with world(tmp_path, cut_after=CUT, cuts=4) as here:
        assert here.fetch(expected) and here.path.read_bytes() == CONTENT
        assert [wanted for _, wanted in here.does.asked] == ["", *(f"bytes={CUT * n}-" for n in range(1, 5))]
        assert here.pauses == [1.0] * 4


@pytest.mark.parametrize(
    "behaviour", [{"ranges": False}, {"wrong_range": True}, {"lengthless": True}, {"tag": ""}], ids=str
)
def test_servers_that_cannot_resume_send_all_again(tmp_path, behaviour):
    with world(tmp_path, cut_after=CUT, cuts=2, **behaviour) as here:
        assert here.fetch(Expected()) and here.path.read_bytes() == CONTENT and here.around() == []


def interrupt(_):
    raise KeyboardInterrupt


def test_a_stopped_call_is_resumed_by_the_next(tmp_path):
    with world(tmp_path, cut_after=CUT, cuts=1) as here:
        with pytest.raises(KeyboardInterrupt):
            here.fetch(pause=interrupt)
        assert here.around() == ["a.zip.part", "a.zip.part.json"] and not here.path.exists()
        assert here.fetch() and here.path.read_bytes() == CONTENT and here.around() == []
        assert here.does.asked[-1] == ("/a.zip", f"bytes={CUT}-")


@pytest.mark.parametrize("if_range", [True, False])
def test_halves_of_two_versions_are_never_joined(tmp_path, if_range):
    """Also where the server sends the rest of the newer file although If-Range names the older one."""
    newer = CONTENT[::-1]
    with world(tmp_path, cut_after=CUT, cuts=1, if_range=if_range) as here:

        def change(_):
            here.does.files["/a.zip"], here.does.tag = newer, '"two"'

        assert here.fetch(Expected(), pause=change) and here.path.read_bytes() == newer
        assert [wanted for _, wanted in here.does.asked] == ["", f"bytes={CUT}-"] + [""] * (not if_range)


def test_a_part_of_another_address_or_without_its_note_is_not_continued(tmp_path):
    for note in ('{"url": "http://elsewhere/a.zip", "version": "\\"one\\""}', "damaged", "[]", None):
        with world(tmp_path) as here:
            (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
            if note is not None:
                (tmp_path / "a.zip.part.json").write_text(note)
            assert here.fetch(Expected()) and here.path.read_bytes() == CONTENT
            here.path.unlink()


def test_a_part_that_is_already_whole_or_longer_than_the_file(tmp_path):
    for extra in (b"", b"more"):
        with world(tmp_path) as here:
            (tmp_path / "a.zip.part").write_bytes(CONTENT + extra)
            (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{here.address}/a.zip", "version": "\\"one\\""}}')
            assert here.fetch() and here.path.read_bytes() == CONTENT and here.around() == []
            here.path.unlink()


WRONG = {
    "size": (Expected(len(CONTENT) + 1), r"has 300000 bytes, expected 300001"),
    "sha256": (Expected(len(CONTENT), "sha256", "0" * 64), f"has sha256 {SHA256}, expected 0000"),
    "md5": (Expected(None, "md5", "0" * 32), "has md5"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_never_reaches_its_place(tmp_path, what):
    expected, told = WRONG[what]
    with world(tmp_path) as here:
        with pytest.raises(ValueError, match=told):
            here.fetch(expected)
        assert not here.path.exists() and here.around() == []
        here.path.write_bytes(CONTENT)
        with pytest.raises(ValueError, match="remove it and run the same command again"):
            here.fetch(expected)
        assert here.path.read_bytes() == CONTENT, "what a user put there is kept"


def test_one_flipped_bit_on_the_way_is_noticed(tmp_path):
    with world(tmp_path) as here:
        flipped = bytearray(CONTENT)
        flipped[1234] ^= 4
        here.does.files["/a.zip"] = bytes(flipped)
        with pytest.raises(ValueError, match="damaged, or the file at the source has changed"):
            here.fetch()
        assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(tmp_path):
    with world(tmp_path, status=(503, 3)) as here:
        assert here.fetch() and here.pauses == [2.0, 4.0, 8.0]
        here.path.unlink()
        here.pauses.clear()
        here.does.status = (503, 4)
        with pytest.raises(OSError, match="answers 503 .* 0 bytes are kept, and the same command resumes"):
            here.fetch()
        for code in (401, 403, 404):
            here.does.status, before = (code, 1), len(here.does.asked)
            with pytest.raises(ValueError, match=f"answers {code}"):
                here.fetch()
            assert len(here.does.asked) == before + 1


def test_a_server_that_is_not_there_is_named(tmp_path):
    with world(tmp_path) as here:
        pass
    with pytest.raises(OSError, match="refused.*the same command resumes"):
        here.fetch()
    assert here.pauses == [2.0, 4.0, 8.0] and here.around() == []


def test_a_web_page_is_no_archive_and_other_schemes_are_refused(tmp_path):
    with world(tmp_path, kind="text/html; charset=utf-8") as here:
        with pytest.raises(ValueError, match="web page instead of a.zip: does it ask for a login"):
            here.fetch()
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/a.zip", "/etc/passwd"):
        with pytest.raises(ValueError, match="expected one that begins with http"):
            download(address, here.path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_known_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("ovs_lite.files.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with world(tmp_path) as here:
        with pytest.raises(OSError, match="300000 bytes needed, 1000 free") as failure:
            here.fetch()
    assert failure.value.errno == errno.ENOSPC and failure.value.filename == str(here.path)
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """A file on a disk that takes CUT bytes in all."""

    def __init__(self, stream):
        self.stream, self.left = stream, CUT

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def seek(self, at):
        self.stream.seek(at)

    def write(self, block):
        self.stream.write(block[: self.left])
        self.left -= len(block)
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_keeps_what_came_and_resumes(tmp_path, monkeypatch):
    with world(tmp_path) as here:
        with monkeypatch.context() as patch:
            patch.setattr("ovs_lite.data.download.open", lambda *a: FullDisk(open(*a)), raising=False)
            with pytest.raises(OSError) as failure:
                here.fetch()
        assert failure.value.errno == errno.ENOSPC and failure.value.filename == str(here.path)
        assert (tmp_path / "a.zip.part").stat().st_size == CUT and not here.path.exists()
        assert here.fetch() and here.path.read_bytes() == CONTENT
        assert here.does.asked[-1] == ("/a.zip", f"bytes={CUT}-")


def test_two_calls_at_once_do_not_write_one_file(tmp_path):
    with world(tmp_path, status=(503, 1)) as here:
        waiting, go = threading.Event(), threading.Event()

        def hold(_):
            waiting.set()
            go.wait(30)

        first = threading.Thread(target=here.fetch, kwargs={"pause": hold})
        first.start()
        assert waiting.wait(30)
        code = f"from ovs_lite.data.download import download; download('{here.address}/a.zip', {str(here.path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert other.returncode and "works there" in other.stderr
        go.set()
        first.join()
        assert here.path.read_bytes() == CONTENT
