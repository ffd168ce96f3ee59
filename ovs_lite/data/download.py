"""Files from the web: resumed by range requests, checked against size and digest, renamed into place when whole.

What has come so far lies next to the file's place as NAME.part, with NAME.part.json saying of which version of the
file it is (RFC 9110: ETag or Last-Modified, sent as If-Range), so that halves of two versions are never joined.
"""

import errno
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ovs_lite.files import check_space, file_digest, write_json
from ovs_lite.locks import exclusive

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
TRIES = 4  # without a byte of progress between them
AGENT = {"User-Agent": "ovs-lite", "Accept-Encoding": "identity"}
WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it comes: its size in bytes, its digest by one algorithm of hashlib, or None."""

    size: int | None = None
    algorithm: str | None = None
    digest: str | None = None

    def check_size(self, size: int, path: Path) -> None:
        """Raise ValueError for another size."""
        if self.size is not None and size != self.size:
            raise ValueError(f"{path} has {size} bytes, expected {self.size}; the file at the source may have changed")

    def check(self, path: Path, name: Path) -> None:
        """Raise ValueError where the file at `path` is not the one expected; `name` is what the error calls it."""
        self.check_size(path.stat().st_size, name)
        if self.algorithm and (found := file_digest(path, self.algorithm)) != self.digest:
            told = f"{name} has {self.algorithm} {found}, expected {self.digest}"
            raise ValueError(f"{told}: it is damaged, or the file at the source has changed")


def download(
    url: str,
    path: str | Path,
    expected: Expected | None = None,
    progress: bool = True,
    pause: Callable[[float], Any] = time.sleep,
) -> bool:
    """Bring the file at an http(s) address to `path`; returns False where it was there already and is right.

    A call that was interrupted, or whose connection is cut, resumes; a server without range requests sends all again.
    pause: takes the seconds to wait before another try.
    Raises ValueError for a file of another size or digest (what came is removed, what was at `path` is kept), for an
    address that is refused and for a web page where a file should be; OSError naming the file where the disk is full
    or the server stays away, and the next call resumes.
    """
    path, expected = Path(path), expected or Expected()
    if not re.match(r"https?://", url):
        raise ValueError(f"got address {url!r}, expected one that begins with http:// or https://")
    with exclusive(path.parent, f".{path.name}.lock"):
        if path.exists():
            try:
                expected.check(path, path)
            except ValueError as error:
                raise ValueError(f"{error}; remove it and run the same command again") from None
            return False
        part = path.with_name(f"{path.name}.part")
        _fetch(url, part, path, expected, progress, pause)
        try:
            expected.check(part, path)
        except ValueError:
            _forget(part)
            raise
        with open(part, "r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
        _forget(part)
    return True


def _fetch(url: str, part: Path, path: Path, expected: Expected, progress: bool, pause: Callable) -> None:
    """Bring NAME.part to its whole length, in as many tries as it makes progress."""
    left = TRIES
    with tqdm(total=expected.size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
        while True:
            before = _length(part)
            try:
                if _receive(url, part, path, expected, bar):
                    return
                why: object = "the connection was cut"
            except urllib.error.HTTPError as error:
                if error.code not in WORTH_ANOTHER_TRY:
                    raise ValueError(f"{url}: {_answered(error)}; see the page of the set") from None
                why = _answered(error)
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                why = error
            left = TRIES if _length(part) > before else left - 1
            if not left:
                told = f"{url}: {why}; {_length(part)} bytes are kept, and the same command resumes"
                raise OSError(errno.EIO, told, str(path))
            pause(2.0 ** (TRIES - left))


def _receive(url: str, part: Path, path: Path, expected: Expected, bar: tqdm) -> bool:
    """One request; whether the file is whole after it."""
    have, version = _length(part), _version(part, url)
    headers = dict(AGENT)
    if have and (version or expected.digest):
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if _total(error.headers) == have:
            return True
        _forget(part)  # longer than the file at the source
        return False
    with answer:
        have = have if answer.status == 206 else 0
        if answer.status == 206 and _start(answer.headers) != have:
            _forget(part)  # the server sends another range than it was asked for
            return False
        if answer.status == 206 and version and _tag(answer.headers) != version:
            _forget(part)  # or of another version of the file, whatever If-Range said
            return False
        total = _announced(answer, have)
        _check_answer(answer, total, path, expected)
        check_space(path, (total or expected.size or have) - have)
        write_json(_note(part), {"url": url, "version": _tag(answer.headers)})
        bar.reset(total=total or expected.size)
        bar.update(have)
        ended = _append(answer, part, path, have, bar)
    return ended if total is None else _length(part) >= total


def _append(answer: Any, part: Path, path: Path, have: int, bar: tqdm) -> bool:
    """Write what the answer brings behind the first `have` bytes; whether it came to its end, as far as it says."""
    try:
        with open(part, "r+b" if have else "wb") as stream:
            stream.seek(have)
            while block := _read(answer):
                stream.write(block)
                bar.update(len(block))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return block is not None


def _read(answer: Any) -> bytes | None:
    """The next block, empty at the end, None where the connection was cut."""
    try:
        return answer.read(BLOCK)
    except (OSError, http.client.HTTPException):
        return None


def _check_answer(answer: Any, total: int | None, path: Path, expected: Expected) -> None:
    """Raise ValueError for an answer that cannot be the file, before any of it is kept."""
    if answer.headers.get_content_type() == "text/html" and path.suffix not in (".html", ".htm"):
        raise ValueError(f"{answer.url} sends a web page instead of {path.name}: does it ask for a login? See its page")
    if total is not None:
        expected.check_size(total, path)


def _answered(error: urllib.error.HTTPError) -> str:
    return f"the server answers {error.code} {error.reason}"


def _announced(answer: Any, have: int) -> int | None:
    """Bytes of the whole file, as the answer says; None where it does not."""
    if have:
        return _total(answer.headers)
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _start(headers: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _total(headers: Any) -> int | None:
    found = re.match(r"bytes .*/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _tag(headers: Any) -> str:
    """What names the version: a strong ETag, else the date of change; "" where there is neither."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _version(part: Path, url: str) -> str:
    """The version of which the part is; "" where that is not known, and nothing can be resumed."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        return str(note["version"]) if note["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
