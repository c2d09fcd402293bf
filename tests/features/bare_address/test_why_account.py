"""What an account asks for, in ``ringfence why ACCOUNT``."""

from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import DaemonUnreachableError
from ringfence.features.bare_address import why_account

FRIEND = {
    "address": "192.0.2.1",
    "accounts": ["alice", "b\\x1bob"],
    "host": "198.51.100.9",
    "last": "2026-11-28T08:00:00Z",
}


@pytest.mark.parametrize("account", ["alice", "b\x1bob"])
def test_an_account_that_asks_for_the_address(monkeypatch: pytest.MonkeyPatch, account: str) -> None:
    """It has a line for each of its addresses."""
    report = {"bare_address": {"friends": [FRIEND, FRIEND | {"accounts": ["carol"]}], "without_name": 2}}
    monkeypatch.setattr(why_account, "ask_daemon", lambda *_, **__: report)
    found = why_account.facts(Path(), account)
    assert found == {"without_name": [FRIEND], "unlisted": 0}
    [(label, text)] = why_account.lines(found)
    assert label == "domain"
    assert text.startswith("192.0.2.1 asks for 198.51.100.9, last 2026-11-28 08:00: no name")


def test_an_account_may_be_among_those_that_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon lists only the latest addresses, so an account without a line may ask for none too."""
    report = {"bare_address": {"friends": [FRIEND], "without_name": 3}}
    monkeypatch.setattr(why_account, "ask_daemon", lambda *_, **__: report)
    [(_, text)] = why_account.lines(why_account.facts(Path(), "carol"))
    assert text.startswith("2 other addresses ask for no name of this PBX, and may be this account's")


def test_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon, or if the rule is off, there is no line."""

    def no_daemon(*_: Any, **__: Any) -> Any:  # noqa: ANN401 - it never returns
        raise DaemonUnreachableError("no daemon")

    asks: list[Any] = [no_daemon, lambda *_, **__: {}]
    for ask in asks:
        monkeypatch.setattr(why_account, "ask_daemon", ask)
        found = why_account.facts(Path(), "alice")
        assert found == {"without_name": [], "unlisted": 0}
        assert [*why_account.lines(found)] == []
    assert [*why_account.lines({})] == []
