"""The cost of the live page: for the daemon, and for a browser with 10,000 bans.

The daemon's CPU and memory are measured while 10,000 guesses run at a real Asterisk, with metrics and one
open page against without. The page is asked for as often as an open page in a browser asks. The browser is a
real Chromium; an update is measured from its request until it is drawn. Every view is looked at by axe.
"""

import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field
from tests.bench.costs import GUESSES, SOURCES, THRESHOLD, counted, share_of_asterisk
from tests.bench.figures import Figure, spread
from tests.bench.pace import limited
from tests.bench.testbed import PLACED, bed, only
from tests.support.chromium import PHONE, Window, chromium, why_no_chromium
from tests.support.daemon import Guard
from tests.support.process import resident
from tests.support.web import free_port, web_server

from ringfence.features.web.pages import REFRESH

VIEWS = (
    *("", "bans", "past", "log", "alarms", "lists", "why?about=10.0.0.9", "why?about=204"),
    *("confirm?do=ban&what=10.0.0.9", "confirm?do=unban&what=10.0.0.9"),
)
SCREENS: tuple[dict[str, Any], ...] = ({"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE)

BANS = 10_000
UPDATES = 5
RUNS = 3
MEGABYTE = 1_000_000


@define
class Costs:
    """The measurements of one kind of daemon: CPU as a share of Asterisk's, and memory after it (bytes)."""

    share: list[float] = field(factory=list)
    memory: list[int] = field(factory=list)


@contextmanager
def _open_page(folder: Path, control: Path) -> Iterator[None]:
    """Run the live page, and keep it open."""
    ended, failed = threading.Event(), list[int]()
    with web_server(folder, control) as web:
        browser = web.browser()

        def update() -> None:
            while not ended.wait(REFRESH):
                if (status := browser.get("/").status) != 200:
                    failed.append(status)

        thread = threading.Thread(target=update, name="open-page")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    if failed:
        raise RuntimeError(f"the page answered with {failed[0]}")


def guarding(*, shown: bool) -> Costs:
    """Measure a daemon under attack, with metrics and one open page if ``shown``."""
    found = Costs()
    metrics: dict[str, Any] = {"metrics": {"listen": "127.0.0.1:9721"}} if shown else {}
    for _ in range(RUNS):
        with (
            tempfile.TemporaryDirectory() as folder,
            bed(only(guess={"attempts": THRESHOLD}), priority=False, **metrics) as here,
        ):
            measure = partial(share_of_asterisk, here.lab, here.guard.pid, partial(counted, here.guard))
            if shown:
                with _open_page(Path(folder), here.guard.folder / "control.sock"):
                    found.share.append(measure())
            else:
                found.share.append(measure())
            found.memory.append(resident(here.guard.pid))
    return found


@define
class Shown:
    """Results of Chromium with 10,000 bans: times in milliseconds, and what no page may have."""

    first: list[float] = field(factory=list)
    updates: list[float] = field(factory=list)
    violations: list[str] = field(factory=list)
    foreign: list[str] = field(factory=list)
    inline: int = 0

    def look(self, window: Window, site: str) -> None:
        """Look at every view."""
        for view in VIEWS:
            window.page.goto(site + view)
            self.violations += window.violations()
            self.inline += window.scripts_without_nonce()
        self.foreign += [url for url in window.requests if not url.startswith(site)]


def shown_bans() -> Shown:
    """Open the page with 10,000 bans, update it, and look at every view on three screens."""
    found = Shown()
    with (
        tempfile.TemporaryDirectory() as name,
        Guard(Path(name)) as guard,
        web_server(Path(name, "web"), Path(name, "control.sock"), free_port()) as web,
        chromium() as browser,
    ):
        networks = [f"10.0.{number // 256}.{number % 256}" for number in range(BANS)]
        guard.ask("ban", networks=networks, seconds=86_400)
        window = Window.opened(browser).log_in(web.link())
        site = window.page.url
        for number in range(UPDATES):
            window.page.goto(f"{site}bans?sort=address")
            found.first.append(window.first_content())
            guard.ask("unban", networks=[networks[number]])
            found.updates.append(window.next_update("bans")[0])
        window.close()
        for options in SCREENS:
            window = Window.opened(browser, **options).log_in(web.link())
            found.look(window, site)
            window.close()
    return found


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    if reason := why_no_chromium():
        raise RuntimeError(reason)
    yield from _rows(shown_bans())
    without, shown = guarding(shown=False), guarding(shown=True)
    ratio = statistics.median(shown.share) / statistics.median(without.share)
    memory = (statistics.median(shown.memory) - statistics.median(without.memory)) / MEGABYTE
    what = f"with metrics and an open live page beside that without, {SOURCES * GUESSES} guesses"
    yield Figure(
        f"CPU of the daemon {what}, ratio of medians (n={RUNS})",
        f"{ratio:.2f}",
        "≤ 1.1",
        ratio <= 1.1,
        cores=PLACED,
    )
    yield Figure(f"memory of the daemon {what}, MB", f"{memory:.1f}", "≤ 5", memory <= 5)


def _rows(found: Shown) -> Iterator[Figure]:
    what = f"the live page with {BANS} bans in Chromium, milliseconds"
    for step, times, most in ("first content", found.first, 1_000), ("an update", found.updates, 200):
        limit = limited(max(times), most)
        yield Figure(f"{what}: {step}", spread(times), f"each {limit.must}", limit.reached)
    yield Figure(
        f"{len(VIEWS)} views on {len(SCREENS)} screens (light, dark, phone): rules of accessibility that are "
        "broken (axe); requests to other sites; scripts without nonce",
        f"{len(found.violations)}; {len(found.foreign)}; {found.inline}",
        "0; 0; 0",
        not (found.violations or found.foreign or found.inline),
    )
