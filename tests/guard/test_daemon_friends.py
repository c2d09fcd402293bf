"""The daemon and its friends: it learns the registered phones in seconds, before the first ban."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.amiserver import NO_PHONES, Script
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ami_server, until

PHONE = "198.18.1.101"
GUESSES = capture("asterisk-22", "wrong-password-register").ami.read_bytes()  # three by PHONE, as alice
THREE = {"guess": {"attempts": 3}}


def contact_of(address: str) -> bytes:
    """Return the registration of a phone at this address, as alice, as Asterisk's database reports it."""
    value = {
        "uri": f"sip:alice@{address}:53733",
        "endpoint": "alice",
        "expiration_time": str(int(time.time()) + 3_600),
    }
    key = "/registrar/contact/alice;@8ab3db4645e2d7bad84f15cfefd659bd"
    return f"Event: DBGetTreeResponse\r\nKey: {key}\r\nVal: {json.dumps(value)}".encode()


def guarded(
    folder: Path, lists: Mapping[str, Sequence[bytes]] = NO_PHONES, answers: Mapping[str, bytes] | None = None
) -> tuple[set[str], set[str]]:
    """Report wrong passwords after the login, before the phones; return friends and banned addresses."""
    script = Script(play=[GRANTED, GUESSES], lists=lists, answers=answers or {})
    with ami_server(script) as pbx, Guard(folder, ami={"port": pbx.port}, rules=THREE) as guard:
        until(lambda: guard.ask("status")["attempts"] == 3, "the attempts")
        if lists is NO_PHONES:
            until(guard.banned, "the ban")
        else:
            until(lambda: guard.ask("friends"), "the friend")
            until(lambda: not guard.ask("status")["limiter_waits"], "the limiter")
        return {row["address"] for row in guard.ask("friends")}, guard.banned()


def test_a_phone_that_is_registered_is_a_friend_before_it_could_be_banned(tmp_path: Path) -> None:
    """A phone is not banned if its failures arrive before Asterisk reports its registration."""
    phones = {**NO_PHONES, "DBGetTree": [contact_of(PHONE)]}

    assert guarded(tmp_path, phones) == ({PHONE}, set())


def test_a_stranger_is_banned_when_the_registrations_are_known(tmp_path: Path) -> None:
    """An unregistered address is banned as soon as the registrations are known."""
    assert guarded(tmp_path) == (set(), {PHONE})


def test_without_a_roster_bans_wait_only_some_seconds(tmp_path: Path) -> None:
    """If an Asterisk sends no roster, bans wait for some seconds and are then placed."""
    assert guarded(tmp_path, answers={"DBGetTree": b"", "ListCommands": b""}) == (set(), {PHONE})
