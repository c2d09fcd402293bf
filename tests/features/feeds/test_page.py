"""The feeds on the live page."""

import os
from collections.abc import Iterator

import pytest
from tests.support.daemon import Guard, until
from tests.support.web import Browser, web_server


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser at the page of a daemon with two feeds: one is in force, and the other has no list."""
    folder = tmp_path_factory.mktemp("feeds")
    path = folder / "office.txt"
    path.write_text("198.51.100.0/24\n10.0.0.1\n", "ascii")
    os.utime(path, (1, 1))
    feeds = [{"name": "office", "file": str(path)}, {"name": "lost", "file": str(folder / "lost.txt")}]
    with Guard(folder, feeds=feeds) as guard:
        until(lambda: guard.ask("feeds")[0]["state"] == "in force", "the feed is taken over")
        with web_server(folder / "web", folder / "control.sock") as web:
            yield web.browser()


@pytest.mark.parametrize("target", ["/", "/lists"])
def test_each_feed_has_its_state(browser: Browser, target: str) -> None:
    """The overview and the lists show each feed: its state, its networks, and what is wrong with it."""
    answer = browser.get(target)

    assert "office in force 1 1 1970-01-01 00:00:01" in answer.words
    assert "leaves out 10.0.0.1 (local)" in answer.words
    assert "lost waiting 0 0 never" in answer.words
    assert "lost.txt: there is no such file" in answer.words
    assert ("td", {"class": "bad"}) in answer.document.elements


def test_without_feeds_the_lists_say_how_to_add_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The lists name the command that adds a feed, and the overview has no empty table."""
    folder = tmp_path_factory.mktemp("none")
    with Guard(folder), web_server(folder / "web", folder / "control.sock") as web:
        browser = web.browser()
        assert "There is no feed. ringfence feeds add lists known ones." in browser.get("/lists").words
        assert "Feeds" not in browser.get("/").words
