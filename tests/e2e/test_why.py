"""Why, on a real Asterisk: an attempt with all its witnesses, the ban as the kernel has it, and a friend."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded
from tests.support.lab import Lab

from ringfence.detect.rules import RULES

pytestmark = pytest.mark.asterisk

MANY = "20000"
_GUESS = next(rule for rule in RULES if rule.name == "guess")


def why(guard: Guard, address: str) -> dict[str, Any]:
    """Ask, as a script does."""
    told: dict[str, Any] = json.loads(guard.must("why", address, "--json"))
    return told


def test_a_newcomer_from_his_first_guesses_to_his_ban(asterisk22: Lab, tmp_path: Path) -> None:
    """Three guesses are told with AMI, log and wire, and are proven; then the ban, and what is dropped."""
    source = "198.19.27.1"
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack("guess", "--number", "3", "--sources", source)
        until(lambda: _is_told_by_all(why(guard, source)), "every witness of three attempts")
        told = why(guard, source)

        assert (told["verdict"], told["friend"], told["bans"]) == ("stranger", False, [])
        assert {attempt["proof"] for attempt in told["attempts"]} == {"nonce"}
        assert {rule["rule"]: rule["have"] for rule in told["rules"]}["guess"] == 3
        assert told["outlook"][0].startswith("2 more proven guesses within ")

        asterisk22.attack("guess", "--number", MANY, "--sources", source)
        until(lambda: why(guard, source)["bans"], "the ban")
        told = why(guard, source)

        [ban] = told["bans"]
        assert (told["verdict"], ban["rule"], ban["attempts"], ban["in_kernel"]) == (
            "banned",
            "guess",
            5,
            True,
        )
        assert ban["proven"] >= 4
        assert ban["packets"] > 0
        assert sum(attempt["ban"] is not None for attempt in told["attempts"]) == 5
        assert any(f"ringfence unban {source}" in sentence for sentence in told["outlook"])


def test_a_phone_is_a_friend_and_says_why(asterisk22: Lab, tmp_path: Path) -> None:
    """Who has logged in is a friend by that, passes the limiter, and has numbers of its own."""
    source = "198.19.27.2"
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack("register", "--sources", source)
        until(lambda: why(guard, source)["friend"], "the friend")
        told = why(guard, source)

        assert told["verdict"] == "friend"
        assert told["rolls"] == {"allow": False, "deny": False, "friends": True}
        assert {friend["account"] for friend in told["friends"]} == {"alice"}
        assert any(friend["proven"] for friend in told["friends"])
        assert told["outlook"][0].startswith(f"a friend: {_GUESS.friends} guesses within ")


def _is_told_by_all(told: dict[str, Any]) -> bool:
    wanted = {"ami", "log", "wire"}
    known = [{source.partition(":")[0] for source in one["sources"]} for one in told["attempts"]]
    return len(known) == 3 and all(one >= wanted for one in known)
