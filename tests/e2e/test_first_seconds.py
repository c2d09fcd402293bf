"""The first second of a daemon that knows no friend yet: guessers get few answers, and phones get in."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support import phones
from tests.support.first_seconds import (
    OFFICE,
    TRANSPORTS,
    guess_at_once,
    register_at_once,
)
from tests.support.guarded import NO_WIRE
from tests.support.lab import Lab
from tests.support.sip import Result

pytestmark = pytest.mark.asterisk


def rationed(result: Result, transport: str) -> bool:
    """Whether the guesser got four answers, and no more than the ration's until it was banned.

    Two pass in a second; by TCP, where the ration counts bytes, five. A ban can also come before any answer.
    """
    seconds = 1 + max(0.0, result.last_answered - result.first_sent)
    return result.answered <= 4 + (5 if transport == "TCP" else 2) * seconds


LOG_ALONE: Mapping[str, Any] = {"ami": {"enabled": False}, "wire": NO_WIRE}


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
def test_a_guesser_gets_few_answers_before_any_friend_is_known(asterisk22: Lab, backend: str) -> None:
    """By UDP and TCP, guessing begins at READY: the ration holds at once, and the ban follows the roster."""
    for number, transport in enumerate(TRANSPORTS):
        source = f"198.19.{60 + len(backend)}.{60 + number}"
        assert rationed(guess_at_once(asterisk22, source, transport, backend), transport)


def test_a_guesser_gets_few_answers_from_a_daemon_that_reads_the_log_alone(asterisk22: Lab) -> None:
    """Without AMI no roster comes, so neither the ration nor the ban waits for one."""
    assert rationed(guess_at_once(asterisk22, "198.19.60.70", "UDP", "ipset", **LOG_ALONE), "UDP")


@pytest.mark.parametrize(
    ("known", "backend"),
    [
        pytest.param(True, "ipset", id="registered-ipset"),
        pytest.param(False, "nftables", id="new-nftables"),
        pytest.param(True, "nftables", id="registered-nftables", marks=pytest.mark.long),
        pytest.param(False, "ipset", id="new-ipset", marks=pytest.mark.long),
    ],
)
def test_an_office_behind_one_address_gets_in_at_the_first_start(backend: str, *, known: bool) -> None:
    """Two hundred phones register together at READY, known to Asterisk or new: each gets in, none is banned.

    The database is empty, so to the ration the office is a stranger until the roster or a login shows it.
    """
    with Lab.made("22", phones.configured()) as lab:
        seconds, banned = register_at_once(lab, "198.19.60.80", backend, known=known)
    assert (len(seconds), banned) == (OFFICE, set())
