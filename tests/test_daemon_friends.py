"""The daemon and friends: whose phones are registered is known before the first ban, within seconds."""

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
    """Give what Asterisk's database says of a phone there, as alice."""
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
    """Have wrong passwords told right after the login, before the phones; give who is a friend and banned."""
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
    """Its failures are heard before Asterisk has told that it is registered: it is not banned."""
    phones = {**NO_PHONES, "DBGetTree": [contact_of(PHONE)]}

    assert guarded(tmp_path, phones) == ({PHONE}, set())


def test_who_is_none_is_banned_as_soon_as_that_is_known(tmp_path: Path) -> None:
    """The same without a registration is a ban, and what others have registered changes nothing."""
    assert guarded(tmp_path) == (set(), {PHONE})


def test_an_asterisk_that_does_not_tell_shields_nobody(tmp_path: Path) -> None:
    """Where no roster comes bans wait for some seconds and then fall."""
    assert guarded(tmp_path, answers={"DBGetTree": b"", "ListCommands": b""}) == (set(), {PHONE})
