"""A headless Chromium that tests drive by its DevTools protocol, over a pipe."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
PATIENCE = 60  # seconds for an answer, on a machine that does other work
DOMAINS = ("Page", "Runtime", "Log", "Network")


class Browser:
    """One tab. What goes wrong in it, and what it asks the network for, is kept in `problems`."""

    def __init__(self, profile: Path):
        read_end, self.questions = os.pipe()
        self.answers, write_end = os.pipe()
        # Chromium reads from file descriptor 3 and writes to 4; copies above 10 are in nobody's way.
        copies = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read_end, write_end)]
        shell = f'exec "$@" 3<&{copies[0]} 4>&{copies[1]}'
        command = ["bash", "-c", shell, "bash", str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen([*command, "about:blank"], pass_fds=copies, stderr=subprocess.DEVNULL)
        for end in (read_end, write_end, *copies):
            os.close(end)
        self.unread = b""
        self.number = 0
        self.session: dict[str, str] = {}
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.session = {"sessionId": session}
        for domain in DOMAINS:
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self.questions)
        os.close(self.answers)

    def call(self, method: str, **params: Any) -> dict:
        """Send a command and return its result."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.questions, json.dumps(command).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def message(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], deadline - time.monotonic())
            assert ready, f"{CHROMIUM} does not answer"
            data = os.read(self.answers, 1 << 20)
            assert data, f"{CHROMIUM} has ended"
            self.unread += data
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, width: int, height: int = 844, scheme: str = "light", media: str = "") -> None:
        """Load a file in a window of that size."""
        self.events = []
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def value(self, expression: str) -> Any:
        """What JavaScript makes of an expression."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str, share: float = 0.5) -> None:
        """Press the mouse on an element, at that share of its width."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center'}})")
        box = f"{element}.getBoundingClientRect()"
        left, top, width, height = self.value(f"(box => [box.left, box.top, box.width, box.height])({box})")
        place = {"x": left + share * width, "y": top + height / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, selector: str, key: str, code: int) -> None:
        """Press a key on an element."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    @property
    def problems(self) -> list[str]:
        """Errors, console messages and requests to the network since the last `open`."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                found.append(json.dumps(params)[:500])
            if event["method"] == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(("file:", "data:", "about:")):
                    found.append(f"a request for {address[:200]}")
        return found
