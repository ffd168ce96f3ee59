"""A server on loopback that sends files as servers of data sets do, well and badly."""

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server does.

    files: path -> content. ranges, if_range: whether it knows range requests, and If-Range. tag: the ETag.
    cut_after: bytes of an answer after which the connection breaks, for as many answers as `cuts` says.
    status: (code, times) of answers that fail first. lengthless: no Content-Length. wrong_range: ranges begin a byte
    too late. kind: the Content-Type.
    asked: path and Range header of each request.
    """

    files: dict[str, bytes]
    ranges: bool = True
    if_range: bool = True
    tag: str = '"one"'
    cut_after: int = 0
    cuts: int = 0
    status: tuple[int, int] = (0, 0)
    lengthless: bool = False
    wrong_range: bool = False
    kind: str = "application/zip"
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serving(behaviour: Behaviour):
    """The address of a running server, without a closing slash."""
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        does, wanted = self.behaviour, self.headers.get("Range", "")
        does.asked.append((self.path, wanted))
        code, times = does.status
        content = does.files.get(self.path)
        if times or content is None:
            does.status = (code, times - 1)
            self._head(code if times else 404, 0)
            return
        start = self._start(wanted, content)
        if start is None:
            self._head(416, 0, f"bytes */{len(content)}")
            return
        start += bool(start and does.wrong_range)
        given = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, len(content) - start, given if start else "")
        self._send(content[start:])

    def _start(self, wanted, content):
        does = self.behaviour
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        if not found or not does.ranges or does.if_range and self.headers.get("If-Range", does.tag) != does.tag:
            return 0
        return int(found[1]) if int(found[1]) < len(content) else None

    def _head(self, code, length, content_range=""):
        self.send_response(code)
        self.send_header("Content-Type", self.behaviour.kind)
        if self.behaviour.lengthless and code == 200:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        if self.behaviour.tag:
            self.send_header("ETag", self.behaviour.tag)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _send(self, content):
        does, whole = self.behaviour, True
        if does.cuts and len(content) > does.cut_after:
            does.cuts -= 1
            content, whole = content[: does.cut_after], False
        if does.lengthless:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) + (b"0\r\n\r\n" if whole else b""))
        else:
            self.wfile.write(content)
        self.wfile.flush()
        if not whole:
            self.close_connection = True
