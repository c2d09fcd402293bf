"""The bans that are shared with other hosts, on the live page and in ``ringfence status``."""

from collections.abc import Iterator

import pytest
from attrs import frozen
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi, Fault, fake_api
from tests.support.daemon import Guard, until
from tests.support.web import Browser, web_server


@frozen
class Shared:
    """A host, its page, and the local API, which has decisions of two other origins."""

    api: FakeApi
    guard: Guard
    browser: Browser


@pytest.fixture(name="shared", scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Yield a host that has not pulled yet, as the API fails."""
    folder = tmp_path_factory.mktemp("fleet")
    with fake_api() as api:
        api.add("198.18.9.9", origin="ringfence:pbx-b")
        api.add("198.18.9.8", origin="<b>\u202e")
        api.add("10.0.0.1", origin="cscli")
        api.always = Fault(status=500)
        for name, text in (("password", PASSWORD), ("key", KEY)):
            (folder / name).write_text(text, "ascii")
            (folder / name).chmod(0o600)
        crowdsec = {
            "url": api.url,
            "machine": MACHINE,
            "password_file": str(folder / "password"),
            "key_file": str(folder / "key"),
            "interval": "1s",
        }
        with (
            Guard(folder, crowdsec=crowdsec) as guard,
            web_server(folder / "web", folder / "control.sock") as web,
        ):
            yield Shared(api, guard, web.browser())


def test_what_is_unknown_is_said(shared: Shared) -> None:
    """Before the first pull, decisions, lag and origins are unknown, and the problem is named."""
    until(lambda: shared.guard.ask("fleet")["pull"]["problem"], "a failed pull")
    words = shared.browser.get("/fleet").words
    line = next(line for line in shared.guard.must("status").split("\n") if line.startswith("fleet "))

    assert "last pull never; now it fails: " in words
    assert "lag unknown" in words
    assert "decisions unknown until the first pull" in words
    assert "decisions unknown until the first pull" in shared.browser.get("/").words
    assert "pull never" in line
    assert "lag unknown" in line
    assert "decisions    unknown until the first pull" in shared.guard.command("fleet", "status").stdout


def test_the_fleet(shared: Shared) -> None:
    """After a pull the page shows each origin and node as text, and what is left out."""
    shared.api.always = None
    until(lambda: shared.guard.ask("fleet")["in_force"] == 2, "the decisions")
    until(lambda: shared.guard.ask("fleet")["push"]["last"], "a push")
    until(lambda: "which 2 are applied here" in shared.browser.get("/fleet").words, "the page")
    answer = shared.browser.get("/fleet")

    assert "1 decision that is not applied, such as 10.0.0.1 (a local network)" in answer.words
    assert "ringfence pbx-b 1" in answer.words
    assert "<b>" in answer.words
    assert not any(tag == "b" for tag, _ in answer.document.elements)
    assert "\u202e" not in answer.text
    until(lambda: "of which 2 are applied here" in shared.browser.get("/").words, "the overview")
    line = next(one for one in shared.guard.must("status").split("\n") if one.startswith("fleet "))
    assert "; a dry run, which sends no bans; lag unknown; 0 waiting; 2 decisions of others applied" in line
