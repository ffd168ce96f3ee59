"""A headless Chromium, driven over a pipe by its DevTools protocol, and what a page asked for or complained about."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --hide-scrollbars --remote-debugging-pipe"
).split()
SECONDS = 120  # for an answer, on a machine that does other things too


def chromium():
    """The browser's path; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    return found


class Page:
    """One tab. requests: URLs that left the page's own text. complaints: console errors and exceptions."""

    def __init__(self, to_browser, from_browser):
        self.out, self.source, self.pending, self.number = to_browser, from_browser, b"", 0
        self.session, self.requests, self.complaints, self.loads = None, [], [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """One command of the protocol and its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            found = self._next(end)
            if found.get("id") == self.number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            self._note(found.get("method"), found.get("params", {}))

    def _next(self, end):
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.source], [], [], max(0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS} s"
            part = os.read(self.source, 1 << 16)
            assert part, "the browser ended"
            self.pending += part
        first, _, self.pending = self.pending.partition(b"\0")
        return json.loads(first)

    def _note(self, method, about):
        if method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"].get("exception", {}).get("description", str(about)))
        elif method == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.complaints.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
        elif method == "Page.loadEventFired":
            self.loads += 1

    def open(self, url, width=1100, height=760, dark=False):
        """Load a page; the requests that are kept are those that it makes itself."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        before = self.loads
        self.call("Page.navigate", url=url)
        self.until(lambda: self.loads > before)
        self.requests = [request for request in self.requests if request != url]

    def until(self, condition, seconds=SECONDS):
        """Wait for something."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.evaluate("new Promise(done => setTimeout(done, 50))")

    def evaluate(self, expression):
        """The value of a JavaScript expression, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind, x, y, button="none", **more):
        """A mouse event at a point of the window; kind as mousePressed, mouseReleased, mouseMoved, mouseWheel."""
        clicks = {"clickCount": 1} if kind in ("mousePressed", "mouseReleased") else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, **clicks, **more)

    def press(self, key, control=False):
        """A key, by its name in KeyboardEvent.key, alone or with Ctrl."""
        text = {"text": key} if re.fullmatch(".", key) and not control else {}
        held = {"modifiers": 2} if control else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **held)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **held)

    def pick(self, selector, path):
        """A file for a file input."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found)

    def screenshot(self, path):
        """What is seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser_page(profile):
    """A tab of a browser of its own, whose profile lies in that folder."""
    command = chromium()
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    words = ["bash", "-c", shell, command, *FLAGS, f"--user-data-dir={profile}"]
    environment = os.environ | {"HOME": str(profile)}
    with subprocess.Popen(
        words, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs_in), os.close(theirs_out)
        try:
            yield Page(ours_out, ours_in)
        finally:
            process.kill()
            process.wait()
            os.close(ours_in), os.close(ours_out)
