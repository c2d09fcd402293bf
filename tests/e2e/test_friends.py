"""Friends on a real Asterisk: a phone that registers is one at once, also after restarts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded, passing
from tests.support.lab import Lab
from tests.support.phones import Phone, configured, phones_at

from ringfence.values.friend import FriendReason

pytestmark = pytest.mark.asterisk

WRONG = 8  # more than the rule allows a stranger
CHAN_SIP, PJSIP_OF_16, PJSIP = ("16", 5060, "nftables"), ("16", 5080, "ipset"), ("22", 5060, "ipset")
"""Releases of Asterisk, ports, and firewall backends."""


@contextmanager
def office(folder: Path, release: str, backend: str) -> Iterator[tuple[Lab, Guard]]:
    """Yield an Asterisk with the phones' accounts, and its guard, which enforces everything."""
    firewall = {"backend": backend, "limit": {"mode": "enforce"}}
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, folder, firewall=firewall) as guard,
    ):
        until(lambda: not guard.ask("status")["limiter_waits"], "the first roster")
        yield lab, guard


@contextmanager
def phone_at(lab: Lab, address: str, account: str, port: int) -> Iterator[Phone]:
    """Yield one phone."""
    with phones_at(lab, address, [account], ("198.18.0.1", port)) as [phone]:
        yield phone


def known(guard: Guard) -> dict[str, set[str]]:
    """Return the addresses of friends, each with its accounts."""
    rows: list[dict[str, Any]] = guard.ask("friends")
    return {
        row["address"]: {one["account"] for one in rows if one["address"] == row["address"]} for row in rows
    }


def fails(phone: Phone) -> bool:
    """Register with a wrong password; return whether Asterisk refused it."""
    return phone.register(password="mistyped") in {401, 403}


@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [
        pytest.param(*CHAN_SIP, id="chan_sip"),
        pytest.param(*PJSIP, id="pjsip"),
        pytest.param(*PJSIP_OF_16, id="pjsip-of-16", marks=pytest.mark.long),
    ],
)
def test_a_registered_phone_is_a_friend_over_restarts(
    tmp_path: Path, release: str, port: int, backend: str
) -> None:
    """The phone is listed and in the kernel at once; the next daemon has it there from its start."""
    phone = "198.19.91.7"
    with office(tmp_path, release, backend) as (lab, guard), phone_at(lab, phone, "phone1", port) as first:
        assert known(guard) == {}
        assert first.register(expires=600) == 200
        until(lambda: known(guard) == {phone: {"phone1"}}, "the friend")
        until(lambda: phone in passing(lab, backend), "the friend in the kernel")
        # An event of chan_sip proves no address; but the wire has seen the registration.
        until(
            lambda: FriendReason.AUTHENTICATED in {row["reason"] for row in guard.ask("friends")}, "the proof"
        )
        guard.stop()
        lab.asterisk.stop()
        guard.start()

        assert known(guard) == {phone: {"phone1"}}
        assert phone in passing(lab, backend)
        assert guard.ask("status")["firewall"]["limiter"] == "enforce"


@pytest.mark.parametrize(
    ("release", "port", "backend", "killed"),
    [
        pytest.param(*CHAN_SIP, True, id="chan_sip-killed"),
        pytest.param(*PJSIP, False, id="pjsip-stopped"),
        pytest.param(*CHAN_SIP, False, id="chan_sip-stopped", marks=pytest.mark.long),
        pytest.param(*PJSIP, True, id="pjsip-killed", marks=pytest.mark.long),
        pytest.param(*PJSIP_OF_16, False, id="pjsip-of-16-stopped", marks=pytest.mark.long),
        pytest.param(*PJSIP_OF_16, True, id="pjsip-of-16-killed", marks=pytest.mark.long),
    ],
)
def test_a_phone_that_registered_without_a_daemon_is_not_banned(
    tmp_path: Path, release: str, port: int, backend: str, *, killed: bool
) -> None:
    """A phone registers without a daemon, then fails: the next daemon reads friends first, and bans none."""
    phone, other = "198.19.91.8", "198.19.91.9"
    with (
        office(tmp_path, release, backend) as (lab, guard),
        phone_at(lab, phone, "phone2", port) as came,
        phone_at(lab, other, "phone3", port) as before,
    ):
        assert before.register(expires=600) == 200
        until(lambda: set(known(guard)) == {other}, "the friend of before")
        (guard.kill if killed else guard.stop)()
        assert came.register(expires=600) == 200
        # The log reports these before the daemon has asked Asterisk for the registered phones.
        assert all(fails(came) for _ in range(WRONG))
        guard.start()
        until(lambda: fails(came) and guard.ask("status")["attempts"] >= WRONG, "the attempts")
        until(lambda: set(known(guard)) == {phone, other}, "the phone that came meanwhile")

        assert guard.bans() == []
        assert came.register() == 200
