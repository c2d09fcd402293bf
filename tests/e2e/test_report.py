"""The report of a real attack, as a page in a real Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from tests.support.chromium import PHONE, Window, chromium, why_no_chromium
from tests.support.daemon import until
from tests.support.guarded import shared
from tests.support.lab import Lab

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.skipif(bool(why_no_chromium()), reason=why_no_chromium()),
]

SENDER = "198.19.51.1"
SCREENS: dict[str, dict[str, Any]] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_the_page_of_a_report(asterisk22: Lab, browser: Browser, tmp_path: Path) -> None:
    """The page shows the attacker, asks for nothing, has no fault that axe finds, and can be printed."""
    page = tmp_path / "report.html"
    with shared(asterisk22) as guard:
        asterisk22.attack("guess", "--number", "2000", "--sources", SENDER)
        until(lambda: SENDER in guard.banned(), "the ban")
        guard.must("report", "--since", "1h", "--html", str(page))
    for options in SCREENS.values():
        window = Window.opened(browser, **options)
        window.page.goto(page.as_uri())
        assert window.heading == "ringfence report"
        assert f"{SENDER} " in window.words
        assert window.violations() == []
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert window.page.evaluate(wide) <= 0
        window.close()
        assert window.requests == [page.as_uri()]
        assert window.errors == []
    window = Window.opened(browser)
    window.page.goto(page.as_uri())
    assert window.page.pdf(format="A4").count(b"/Type /Page\n") <= 4
    window.close()
