"""The command why on a real Asterisk: an attempt with all its sources, a ban in the kernel, and a friend."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_WIRE, guarded, shared
from tests.support.lab import Lab

from ringfence.detect.rules import RULES

pytestmark = pytest.mark.asterisk

MANY = "20000"
PATIENT = ("--timeout", "5")  # for attacks that get every answer
_GUESS = next(rule for rule in RULES if rule.name == "guess")


def why(guard: Guard, address: str) -> dict[str, Any]:
    """Return what the command why prints as JSON."""
    answer: dict[str, Any] = guard.ask("why", network=address)
    return answer


def test_a_stranger_from_its_first_guesses_to_its_ban(asterisk22: Lab) -> None:
    """Three guesses are listed with AMI, log and wire, and are proven; then come the ban and its drops."""
    source = "198.19.27.1"
    with shared(asterisk22) as guard:
        asterisk22.attack("guess", "--number", "3", "--sources", source, *PATIENT)
        until(lambda: _has_all_sources(why(guard, source)), "every source of three attempts")
        answer = why(guard, source)

        assert (answer["verdict"], answer["friend"], answer["bans"]) == ("stranger", False, [])
        assert {attempt["proof"] for attempt in answer["attempts"]} == {"nonce"}
        assert {rule["rule"]: rule["have"] for rule in answer["rules"]}["guess"] == 3
        assert answer["forecast"][0].startswith("2 more proven guesses within ")

        # A narrow ban may come first; the attacker goes on, so that the full ban drops packets as well.
        asterisk22.attack("guess", "--number", MANY, "--sources", source, "--silences", "10")
        until(lambda: _drops_packets(why(guard, source)), "the full ban to drop packets")
        answer = why(guard, source)

        [ban] = answer["bans"]
        assert (answer["verdict"], ban["rule"], ban["attempts"], ban["in_kernel"]) == (
            "banned",
            "guess",
            5,
            True,
        )
        assert ban["proven"] >= 4
        assert ban["packets"] > 0
        # A narrow ban of the same second may rest in part on other attempts.
        named = sum(attempt["ban"] is not None for attempt in answer["attempts"])
        assert 5 <= named <= 5 * (1 + len(answer["past"]))
        assert any(f"ringfence unban {source}" in sentence for sentence in answer["forecast"])


def test_a_phone_is_a_friend_and_why_explains_it(asterisk22: Lab) -> None:
    """A phone that has logged in is a friend, passes the limiter, and has the thresholds of friends."""
    source = "198.19.27.2"
    with shared(asterisk22) as guard:
        asterisk22.attack("register", "--sources", source)
        until(lambda: why(guard, source)["kernel_lists"]["friends"], "the friend in the kernel")
        answer = why(guard, source)

        assert json.loads(guard.must("why", source, "--json"))["verdict"] == "friend"
        assert answer["verdict"] == "friend"
        assert answer["kernel_lists"] == {"allow": False, "deny": False, "friends": True}
        assert {friend["account"] for friend in answer["friends"]} == {"alice"}
        assert any(friend["proven"] for friend in answer["friends"])
        assert answer["forecast"][0].startswith(f"a friend: {_GUESS.friends} guesses within ")


def test_why_explains_an_unconfirmed_attempt(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the wire nothing confirms the notice of a hidden guess: no rule counts it, as why explains."""
    source = "198.19.27.3"
    with guarded(asterisk22, tmp_path, wire=NO_WIRE) as guard:
        asterisk22.attack("guess", "--number", "2", "--sources", source, "--call-id", r"\xff{}", *PATIENT)
        until(lambda: len(why(guard, source)["attempts"]) == 2, "two attempts")
        answer = why(guard, source)

        [sentence] = answer["evidence"]
        assert sentence.startswith("no attempt counts: only the log names this address")
        assert not any(attempt["trusted"] for attempt in answer["attempts"])
        assert not any(rule["have"] for rule in answer["rules"])
        assert "evidence  no attempt counts: only the log" in guard.must("why", source)


def _drops_packets(answer: dict[str, Any]) -> bool:
    return any(ban["scope"] == "sip" and ban["packets"] > 0 for ban in answer["bans"])


def _has_all_sources(answer: dict[str, Any]) -> bool:
    wanted = {"ami", "log", "wire"}
    known = [{source.partition(":")[0] for source in one["sources"]} for one in answer["attempts"]]
    return len(known) == 3 and all(one >= wanted for one in known)
