"""What an account asks for, in ``ringfence why ACCOUNT``."""

import pytest

from ringfence.features.bare_address import why_account

FRIEND = {
    "address": "192.0.2.1",
    "accounts": ["alice", "b\\x1bob"],
    "host": "198.51.100.9",
    "last": "2026-11-28T08:00:00Z",
}


@pytest.mark.parametrize("account", ["alice", "b\x1bob"])
def test_an_account_that_asks_for_the_address(account: str) -> None:
    """It has a line for each of its addresses."""
    report = {"bare_address": {"friends": [FRIEND, FRIEND | {"accounts": ["carol"]}], "without_name": 2}}
    found = why_account.facts(report, account)
    assert found == {"without_name": [FRIEND], "unlisted": 0}
    [(label, text)] = why_account.lines(found)
    assert label == "domain"
    assert text.startswith("192.0.2.1 asks for 198.51.100.9, last 2026-11-28 08:00: no name")


def test_an_account_may_be_among_those_that_are_not_listed() -> None:
    """The daemon lists only the latest addresses, so an account without a line may ask for none too."""
    report = {"bare_address": {"friends": [FRIEND], "without_name": 3}}
    [(_, text)] = why_account.lines(why_account.facts(report, "carol"))
    assert text.startswith("2 other addresses ask for no name of this PBX, and may be this account's")


def test_nothing_is_known() -> None:
    """Without a daemon, or if the rule is off, there is no line."""
    found = why_account.facts({}, "alice")
    assert found == {"without_name": [], "unlisted": 0}
    assert [*why_account.lines(found)] == []
    assert [*why_account.lines({})] == []
