"""Debian's Chromium without a screen, driven by Playwright. It reaches this host only."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Self

from attrs import Factory, define
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

expect.set_options(timeout=20_000)  # milliseconds, as the windows have

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
"""The screen of a small phone, as options of a window."""

_ARGUMENTS = (
    "--no-sandbox",  # it refuses to run as root otherwise
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_PAINT = """
() => new Promise((done) => new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint")[0];
  if (found) done(found.startTime);
}).observe({ type: "paint", buffered: true }))
"""
_UPDATE = """
(id) => new Promise((done) => {
  let longest = 0;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
  }).observe({ type: "longtask" });
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
    const fetched = performance.getEntriesByType("resource").filter((one) => one.initiatorType === "fetch");
    done([performance.now() - fetched.at(-1).startTime, longest]);
  }))).observe(document.getElementById(id), { childList: true });
})
"""
_AXE = "axe_playwright_python", "axe.min.js"


def why_no_chromium() -> str:
    """Return why Chromium cannot be run here; empty if it can."""
    return "" if shutil.which("chromium") else "`make system` installs the package chromium"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium while the block runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*_ARGUMENTS])
        try:
            yield browser
        finally:
            browser.close()


@define(eq=False, slots=False)  # Playwright sets an attribute on the object of a handler
class Window:
    """A window with cookies of its own.

    ``requests`` are the addresses that it asked for. ``errors`` are those of its console, such as a violation
    of the Content-Security-Policy, its uncaught exceptions, and its dialogs.
    """

    page: Page
    requests: list[str] = Factory(list)
    errors: list[str] = Factory(list)

    @classmethod
    def opened(cls, browser: Browser, **options: Any) -> Self:  # noqa: ANN401 - as Playwright takes them
        """Open a window of a desktop, or with the options of Playwright's ``new_context``."""
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        window = cls(context.new_page())
        page = window.page
        page.on("request", lambda request: window.requests.append(request.url))
        page.on("console", lambda message: window._on_console(message.type, message.text))
        page.on("pageerror", lambda error: window.errors.append(str(error)))
        page.on("dialog", window._on_dialog)
        return window

    def _on_dialog(self, dialog: Dialog) -> None:
        self.errors.append(dialog.message)
        dialog.dismiss()

    def _on_console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.errors.append(text)

    def log_in(self, link: str) -> Self:
        """Log in with a link: open it, and press its button. Without scripts, fill in the token first."""
        self.page.goto(link)
        field = self.page.get_by_label("The part of your link")
        if field.is_visible():
            field.fill(link.partition("#")[2])
        self.press("Log in to ringfence")
        self.page.get_by_role("heading", level=1, name="Overview").wait_for()
        return self

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        """Follow a link."""
        self.page.get_by_role("link", name=name, exact=True).first.click()

    @property
    def heading(self) -> str:
        """The heading of the page."""
        return self.page.locator("h1").inner_text()

    @property
    def words(self) -> str:
        """The text that a person sees, with single blanks."""
        return " ".join(self.page.locator("main").inner_text().split())

    def violations(self) -> list[str]:
        """Return the rules of accessibility that the page breaks, each with an element, as axe finds them."""
        package, name = _AXE
        self.page.evaluate(files(package).joinpath(name).read_text("utf-8"))
        # Without the other results, axe is faster.
        found = self.page.evaluate("async () => (await axe.run({ resultTypes: ['violations'] })).violations")
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]

    def scripts_without_nonce(self) -> int:
        """Return the number of scripts in the page that its Content-Security-Policy does not name."""
        return int(self.page.evaluate("[...document.scripts].filter((one) => !one.nonce).length"))

    def first_content(self) -> float:
        """Return the time from the start of the page until its first content was drawn (milliseconds)."""
        return float(self.page.evaluate(_PAINT))

    def next_update(self, part: str) -> tuple[float, float]:
        """Wait until an update changes the part with this id.

        Return the time from its request until it was drawn, and the longest task meanwhile (milliseconds).
        """
        whole, longest = self.page.evaluate(_UPDATE, part)
        return float(whole), float(longest)

    def close(self) -> None:
        """Close the window."""
        self.page.context.close()
