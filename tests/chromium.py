"""Chromium without a window, driven by its DevTools protocol over two pipes, so that nothing need be installed for it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 60.0  # that anything may take before the test fails
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless=new", "--no-first-run", "--disable-gpu", "--remote-debugging-pipe", "--disable-dev-shm-usage"]
CALM = ["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]  # it calls nobody itself
NOTHING_OUTSIDE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def find() -> str | None:
    """Where Chromium is, if it is anywhere."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A page of a running Chromium.

    Attributes:
        complaints: what the page's console, its uncaught errors and the browser's log of it said so far.
        requests: the addresses that it asked for so far.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._left = to, back, b""
        self._last, self._answers = 0, dict[int, Any]()
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol and its result."""
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._last, "method": method, "params": parameters, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        number, end = self._last, time.monotonic() + SECONDS
        while number not in self._answers:
            self._listen(end)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, address: str) -> None:
        """Goes to a page; it need not have come to rest."""
        self.call("Page.navigate", url=address)
        self.until(lambda: self.value("document.readyState") == "complete")

    def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """What can be read in the first element that a selector finds."""
        found: str = self.value(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def texts(self, selector: str) -> list[str]:
        """What can be read in all that it finds."""
        found: list[str] = self.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText.trim())"
        )
        return found

    def until(self, what: Callable[[], Any]) -> None:
        """Waits until something holds."""
        end = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < end, f"it did not come; the page said {self.complaints}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Presses the mouse in the middle of an element, and lets go."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y = self.value(
            f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])({element}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def enter(self) -> None:
        """Presses the key Enter."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def screen(self, width: int, height: int = 800, *, dark: bool = False) -> None:
        """Looks at the page as a screen of that many pixels does."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Keeps what is seen, from top to bottom, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _listen(self, end: float) -> None:
        """Takes in what has come, or waits for it."""
        assert select.select([self._back], [], [], max(0.0, end - time.monotonic()))[0], "the browser does not answer"
        block = os.read(self._back, 1 << 16)
        assert block, "the browser has ended"
        *whole, self._left = (self._left + block).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("exception", told["exceptionDetails"])))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(f"{told['entry']['level']}: {told['entry']['text']} {told['entry'].get('url', '')}")


@contextlib.contextmanager
def browser(program: str, scratch: Path) -> Iterator[Browser]:
    """Chromium until the end of the block; then it is dead, with all its processes.

    Args:
        program: where it is.
        scratch: a folder for what it keeps.
    """
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]

    def place() -> None:  # where --remote-debugging-pipe looks for them
        for end, number in zip(ends, (3, 4), strict=True):
            os.dup2(end, number)

    alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to have one as root
    line = [program, *FLAGS, *CALM, NOTHING_OUTSIDE, *alone, f"--user-data-dir={scratch / 'profile'}", "about:blank"]
    with (scratch / "browser.log").open("wb") as log:
        child = subprocess.Popen(
            line, stdout=log, stderr=log, preexec_fn=place, pass_fds=(3, 4), start_new_session=True
        )
    for end in (*ends, theirs_in, theirs_out):
        os.close(end)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        for end in (ours_out, ours_in):  # at which it ends
            os.close(end)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
