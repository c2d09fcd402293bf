"""The first sentence of an answer to ``why``."""

from typing import Any

import pytest

from ringfence.explain.headlines import account_headline, address_headline, is_account


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("204", True),
        ("alice", True),
        ("a.b", True),
        ("192.0.2.300", False),
        ("192.0.2.0/24", False),
        ("2001:zz", True),
        ("::5g", True),
    ],
)
def test_a_text_that_looks_like_an_address_is_one(text: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A mistyped address is not looked up as an account."""
    assert is_account(text) is expected


def test_the_sentence_about_an_account() -> None:
    """A verdict is a sentence; one of a later version is shown as it is."""
    assert account_headline({"account": "204", "verdict": "registered"}) == "account 204 works"
    assert account_headline({"account": "204", "verdict": "new"}) == "account 204 new"


@pytest.mark.parametrize(
    ("verdict", "bans", "sentence"),
    [
        ("stranger", [], "192.0.2.1 is not banned"),
        ("denied", [], "192.0.2.1 is denied"),
        ("banned", [{"in_kernel": True, "scope": "full"}], "192.0.2.1 is banned"),
        (
            "banned",
            [{"in_kernel": True, "scope": "sip-udp"}],
            "192.0.2.1 is banned from the SIP ports by UDP",
        ),
        (
            "banned",
            [{"in_kernel": False, "scope": "full"}],
            "192.0.2.1 should be banned, but the ban is missing in the kernel",
        ),
    ],
)
def test_the_sentence_about_an_address(verdict: str, bans: list[dict[str, Any]], sentence: str) -> None:
    """The sentence names the state, and for a ban its scope and whether the kernel has it."""
    found = {"address": "192.0.2.1", "verdict": verdict, "bans": bans, "fence": None}
    assert address_headline(found) == sentence
