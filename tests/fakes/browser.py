"""Chromium, driven over its DevTools protocol: open a page, press keys, ask the page, hear what it complains about."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
START_S = 15.0  # a cold start on a busy machine with two cores takes up to 6 s
CALL_S = 10.0
LOAD_S = 15.0  # of a page with all its modules, where many share the machine
PAGE_S = 35.0  # of a page's whole life: whatever a test waits for, it ends
END_S = 3.0  # it flushes its profile; nobody needs that for longer
POLL_S = 0.03  # how often `until` asks; a page settles within a few frames of 0.016 s
MOST_MESSAGE = 64 * 1024 * 1024  # a screenshot of a long page

FLAGS = (
    "--headless",
    "--no-sandbox",  # test machines and containers run as root, where the sandbox cannot start
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)

KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    " ": (32, " "),
    "End": (35, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class NoBrowser(Exception):
    """There is no Chromium on this machine."""


def find_browser() -> str:
    """Path of the browser. Raises NoBrowser with what to install."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    if MAC.exists():
        return str(MAC)
    raise NoBrowser(
        "the dashboard tests need Chromium: install it with `apt-get install -y chromium`, or Chrome on other systems"
    )


class Page:
    """One tab. `complaints` holds console errors, uncaught exceptions and policy violations, as text."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self.complaints: list[str] = []
        self._deadline = asyncio.get_running_loop().time() + PAGE_S
        self._socket = socket
        self._session = session
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One protocol command. Raises AssertionError where the browser refuses it."""
        self._next += 1
        number = self._next
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "sessionId": self._session, "method": method, "params": params})
        async with asyncio.timeout_at(min(self._deadline, asyncio.get_running_loop().time() + CALL_S)):
            answer = await reply
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def listen(self) -> None:
        """Takes what the browser sends until the connection closes."""
        async for message in self._socket:
            told = json.loads(message.data)
            if (number := told.get("id")) is not None:
                if (waiting := self._waiting.pop(number, None)) and not waiting.done():
                    waiting.set_result(told)
            elif told.get("sessionId") == self._session:
                self._note(told["method"], told["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                words = " ".join(str(each.get("value", each.get("description", ""))) for each in params["args"])
                self.complaints.append(f"console.{params['type']}: {words}")
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(
                    f"{params['entry']['source']}: {params['entry']['text']} {params['entry'].get('url', '')}"
                )
            case _:
                pass

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'", seconds=LOAD_S)

    async def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited. Raises AssertionError where it throws."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in told, (
            f"{expression}: {told['exceptionDetails'].get('exception', {}).get('description')}"
        )
        return told["result"].get("value")

    async def all_text(self, selector: str) -> list[str]:
        """What each element of this selector says."""
        return await self.ask(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())")

    async def until(self, expression: str, *, seconds: float = 5.0) -> Any:
        """Waits until the expression is true in the page and answers its value; an element counts as true.

        Raises AssertionError with what the page shows.
        """
        attempt = f"const v = {expression}; return v instanceof Node ? true : v;"
        question = f"(() => {{ try {{ {attempt} }} catch {{ return null; }} }})()"
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.ask(question)):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            shown = await self.ask("document.body?.innerText")
            raise AssertionError(
                f"never true: {expression}\ncomplaints: {self.complaints}\nthe page says:\n{shown}"
            ) from None
        return value

    async def text(self, selector: str) -> str:
        """Text of the first match, trimmed."""
        return await self.until(f"document.querySelector({json.dumps(selector)})?.textContent.trim()")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as if typed."""
        code, text = KEYS[key]
        about: dict[str, Any] = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 if shift else 0,
        }
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def write(self, text: str) -> None:
        """Text into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def point(self, x: float, y: float, *, click: bool = False) -> None:
        """The pointer to a place of the view, and a click there."""
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def hurry(self, most_ms: int = 300) -> None:
        """On what is opened from here on, nothing that the page does again and again waits longer than this in between."""
        often = f"(work, ms, ...rest) => slow(work, Math.min(ms, {most_ms}), ...rest)"
        quick = f"{{ const slow = setInterval; window.setInterval = {often}; }}"
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=quick)

    async def window(self, width: int, height: int, *, dark: bool = False, still: bool = True) -> None:
        """Size of the view and what the system prefers."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG of the view, or of the whole page."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(told["data"])


@contextmanager
def running_browser() -> Iterator[str]:
    """A browser with a profile of its own; the value is the address that `open_page` takes. Raises NoBrowser.

    Not asynchronous, so that the tests of a module, each with a loop of its own, can share one.
    """
    path = find_browser()
    # The browser still writes into its profile for a moment after it was told to go.
    with tempfile.TemporaryDirectory(prefix="swarmd-browser-", ignore_cleanup_errors=True) as profile:
        command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield _debug_address(Path(profile), process)
        finally:
            _end(process)


def _debug_address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The browser writes the port it chose, and its own path, into its profile."""
    note = profile / "DevToolsActivePort"
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        assert process.poll() is None, f"the browser ended at once with status {process.returncode}"
        lines = note.read_text().split() if note.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(POLL_S)
    raise AssertionError(f"the browser was not ready within {START_S:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@asynccontextmanager
async def open_page(address: str) -> AsyncIterator[Page]:
    """A tab in a context of its own: no cookies, storage or cache of another test."""
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.ws_connect(address, max_msg_size=MOST_MESSAGE) as socket,
    ):
        number = 0

        async def call(method: str, **params: Any) -> dict[str, Any]:
            nonlocal number
            number -= 1  # the page counts upwards
            await socket.send_json({"id": number, "method": method, "params": params})
            async with asyncio.timeout(CALL_S):
                while (told := await socket.receive_json()).get("id") != number:
                    pass
            assert "error" not in told, f"{method}: {told['error']}"
            return told["result"]

        context = (await call("Target.createBrowserContext"))["browserContextId"]
        target = (await call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(socket, session)
        listening = asyncio.create_task(page.listen(), name="browser page")
        try:
            for domain in ("Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # keys reach it whichever tab is in front
            yield page
        finally:
            await socket.send_json(
                {"id": 0, "method": "Target.disposeBrowserContext", "params": {"browserContextId": context}}
            )
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
