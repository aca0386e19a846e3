"""Pages opened in a headless Chromium, where one is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = (390, 844), (1280, 900)
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_WIDTHS = "() => ({page: document.documentElement.scrollWidth, window: window.innerWidth})"


@dataclass(frozen=True)
class Opened:
    """What a page did when it was opened.

    Attributes:
        said: Console messages, errors and dialogs.
        asked: Addresses that it asked for.
        overflow: Pixels that it is wider than the window.
        page: The page itself.
    """

    said: list[str]
    asked: list[str]
    overflow: int
    page: Any


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=_FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, path: Path, size: tuple[int, int], scheme: str = "light") -> Opened:
    """Opens a local page in a window of ``size`` pixels and listens."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.resolve().as_uri())
    widths = page.evaluate(_WIDTHS)
    own = [url for url in asked if not url.startswith(("data:", path.resolve().as_uri()))]
    return Opened(said, own, widths["page"] - widths["window"], page)
