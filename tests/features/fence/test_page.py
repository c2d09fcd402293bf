"""The fence on the live page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.captures import capture
from tests.support.copies import copy_without
from tests.support.daemon import Guard, ami_server, until
from tests.support.mmdb import write
from tests.support.web import Browser, web_server

LOGIN = capture("asterisk-22", "good-register").ami.read_bytes()


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser at a fence whose trial runs: a friend is outside it, and an address is admitted."""
    folder = tmp_path_factory.mktemp("fence")
    database = write(folder / "geo.mmdb", [("198.18.0.0/16", {"country": {"iso_code": "NL"}})])
    fence = {"mode": "enforce", "countries": ["NL"], "networks": ["203.0.113.0/24"], "also": ["443/tcp"]}
    with (
        ami_server() as pbx,
        Guard(folder, ami={"port": pbx.port}, fence=fence, geo={"database": [str(database)]}) as guard,
    ):
        guard.ask("fence_admit", what="192.0.2.7", seconds=28_800.0)
        guard.ask("fence_link_lasting", account="alice", seconds=28_800.0)
        until(lambda: guard.ask("fence")["whole"], "the database is read")
        guard.ask("fence_enforce", seconds=3_600.0, force=True)
        until(lambda: not guard.status()["limiter_waits"], "the friends are known")
        pbx.send(LOGIN.replace(b"198.18.1.110", b"198.51.100.77"))
        until(lambda: guard.ask("fence")["outside"], "the friend outside")
        with web_server(folder / "web", folder / "control.sock") as web:
            yield web.browser()


def test_the_fence(browser: Browser) -> None:
    """It shows the mode, the trial, what is named, who is outside, who is admitted, and what is unknown."""
    words = browser.get("/fence").words

    assert "a trial until" in words
    assert "inside 2 networks, 1 network of friends and former friends named NL, 203.0.113.0/24" in words
    assert "outside unknown: nothing is dropped or counted" in words
    assert words.count("It is unknown who came") == 2
    assert "also 443/tcp: packets from outside are dropped" in words
    assert "From outside at other services in the last hour" in words
    assert "alice 198.51.100.77 registered" in words
    assert "admitted 192.0.2.7 until 20" in words
    assert "links 1 lasting link: alice" in words
    assert "are unknown here: ringfence fence status" in words


def test_the_overview_has_the_fence(browser: Browser) -> None:
    """The overview shows the mode of the fence and how many are outside or admitted."""
    shown = "friends 1 came from outside admitted 192.0.2.7 until 20"
    until(lambda: shown in browser.get("/").words, "the fence")  # a slow answer is shown for a while


def test_without_a_fence(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Their pages show that the fence and the fleet are off, and the overview is silent about both."""
    folder = tmp_path_factory.mktemp("none")
    with Guard(folder) as guard, web_server(folder / "web", folder / "control.sock") as web:
        browser = web.browser()
        assert "The fence is off" in browser.get("/fence").words
        assert "No ban is shared with other hosts" in browser.get("/fleet").words
        assert browser.get("/").links().count("/fence") == browser.get("/").links().count("/fleet") == 1
        assert not {"fence", "fleet"} & {line.split()[0] for line in guard.must("status").split("\n") if line}


@pytest.mark.usefixtures("cold")
def test_a_daemon_without_the_feature(tmp_path: Path) -> None:
    """The overview is complete if the daemon's copy of ringfence has no fence at all."""
    copied = {"PYTHONPATH": str(copy_without(["fence"], tmp_path))}
    with Guard(tmp_path, environ=copied), web_server(tmp_path / "web", tmp_path / "control.sock") as web:
        assert "Source State Events Detail" in web.browser().get("/").words
