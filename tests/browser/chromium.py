"""A headless Chromium driven over its DevTools protocol: go to a page, wait for a text, click, take a picture."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,900",
    "--remote-debugging-port=0",
)  # fmt: skip


def binary() -> str | None:
    """The browser's path, or None where there is none."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Page:
    """One tab."""

    def __init__(self, url: str) -> None:
        self._url, self._loop, self._id = url, asyncio.new_event_loop(), 0
        self._session = self._loop.run_until_complete(self._connect())
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")

    async def _connect(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession()
        self._socket = await session.ws_connect(self._url, max_msg_size=0)
        return session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 60))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._id += 1
        await self._socket.send_str(json.dumps({"id": self._id, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await self._socket.receive_str())
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer.get("result", {})

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def go(self, url: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=url)

    @property
    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, *words: str, seconds: float = 90) -> str:
        """Return the page's text once it shows all words. Raises AssertionError with what it shows instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            text = self.text
            if all(word in text for word in words):
                return text
            time.sleep(0.3)
        raise AssertionError(
            f"not on the page: {[w for w in words if w not in self.text]}; it shows:\n{self.text[:3000]}"
        )

    def click(self, words: str, tag: str = "*") -> None:
        """Click the innermost visible element that shows exactly these words."""
        script = f"""(() => {{
          const found = [...document.querySelectorAll({json.dumps(tag)})].filter(e =>
            (e.innerText || e.getAttribute('aria-label') || '').trim() === {json.dumps(words)} &&
            e.getClientRects().length);
          const e = found[found.length - 1];
          if (!e) return null;
          e.scrollIntoView({{block: 'center'}});
          const r = e.getBoundingClientRect();
          return [r.x + r.width / 2, r.y + r.height / 2];
        }})()"""
        deadline = time.monotonic() + 90
        while (place := self.run(script)) is None:
            assert time.monotonic() < deadline, f"nothing to click says {words!r}; the page shows:\n{self.text[:3000]}"
            time.sleep(0.3)
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        """Press and release the mouse."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key, for instance Enter, 13."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                text="\r" if code == 13 else "",
            )

    def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Let go of the tab."""
        self._loop.run_until_complete(self._session.close())
        self._loop.close()


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A fresh browser with one tab; it and its profile are gone afterwards."""
    path = binary()
    assert path is not None
    profile = Path(tempfile.mkdtemp(prefix="geosweep-browser-"))
    process = subprocess.Popen(
        [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield_page = Page(_tab(profile))
        try:
            yield yield_page
        finally:
            yield_page.close()
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        shutil.rmtree(profile, ignore_errors=True)


def _tab(profile: Path) -> str:
    """The address of the first tab, once the browser has written its port."""
    import urllib.request

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                return str(next(t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page"))
        time.sleep(0.2)
    raise AssertionError("Chromium did not open its DevTools port")
