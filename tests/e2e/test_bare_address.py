"""The rule ``bare_address`` on a real Asterisk: scanners are banned, and phones that use the name are not."""

import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded, shared, until_asking
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.phones import NAME, a_day, configured
from tests.support.sip_raw import Raw, calling, request_of

from ringfence.guard.ban_effectiveness import ENOUGH, GRACE

pytestmark = pytest.mark.asterisk

_numbers = count(7)
RULES = {"prefix": {"enabled": False}}
"""The rule that is off: the senders of all tests are neighbours."""
TRANSPORTS = ["UDP", "TCP"]
SCOPES = {"UDP": "sip-udp", "TCP": "sip-tcp"}


@frozen
class Named(Raw):
    """A request that asks for the name of the PBX in its To header."""

    def encode(self, contact: str, transport: str, text: str = "") -> bytes:
        """Return the request's bytes."""
        request = super().encode(contact, transport, text).split(b"\r\n")
        bare = f"@{PBX_IPV4}>".encode()
        name = f"@{NAME.upper()}:5060>".encode()
        return b"\r\n".join(one.replace(bare, name) if one.startswith(b"To:") else one for one in request)


def settings(mode: str, backend: str = "nftables") -> dict[str, Any]:
    """Return the settings of a daemon with the rule in this mode."""
    return {
        "firewall": {"backend": backend, "ration": {"asking": "enforce"}},
        "rules": RULES,
        "bare_address": {"mode": mode, "domains": [NAME]},
    }


def state(guard: Guard) -> dict[str, Any]:
    """Return what the status has of the rule."""
    found: dict[str, Any] = guard.ask("status")["bare_address"]
    return found


def without_name(guard: Guard) -> set[str]:
    """Return the addresses of the friends that asked for a bare address."""
    return {row["address"] for row in state(guard)["friends"]}


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("method", [b"OPTIONS", b"REGISTER", b"INVITE", b"SUBSCRIBE"])
@pytest.mark.parametrize("release", ["22", "16"])
def test_a_scanner_gets_no_second_answer(open_lab: Lab, method: bytes, transport: str, backend: str) -> None:
    """The first request for a bare address closes the transport by which it came."""
    source = f"198.19.41.{next(_numbers)}"
    with shared(open_lab, **settings("enforce", backend)) as guard:
        until_asking(guard)
        with calling(open_lab, source, transport) as scanner:
            request = request_of(method, b"nobody")
            scanner.send(request)
            until(lambda: source in guard.banned(), "the ban")
            assert scanner.ask(request, 1.0) is None
        [ban] = [row for row in guard.bans() if row["address"] == source]
        assert (ban["rule"], ban["scope"], ban["attempts"]) == ("bare_address", SCOPES[transport], 1)
        found = {(one["kind"], one["transport"]) for one in guard.attempts_of(source)}
        assert ("bare address", transport) in found


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("release", ["22", "16"])
def test_a_phone_with_the_name_is_never_hit(open_lab: Lab, release: str, transport: str) -> None:
    """It registers as a stranger, and as a friend it may ask for the bare address."""
    source = f"198.19.42.{next(_numbers)}"
    account = {"16": b"carol", "22": b"alice"}[release]
    with shared(open_lab, **settings("enforce")) as guard:
        until_asking(guard)
        with calling(open_lab, source, transport) as phone:
            assert phone.guess(Named(from_user=account, contact=account), PASSWORD) == 200
            until(lambda: source in guard.friends(), "the friend")
            assert phone.ask(request_of(b"OPTIONS", account)) is not None
            until(lambda: source in without_name(guard), "its request for the address")
            assert phone.ask(request_of(b"OPTIONS", account)) is not None
        assert source not in guard.banned()


@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [
        pytest.param("22", 5060, "nftables", id="pjsip"),
        pytest.param("16", 5060, "ipset", id="chan_sip", marks=pytest.mark.long),
    ],
)
def test_phones_live_their_day(tmp_path: Path, release: str, port: int, backend: str) -> None:
    """An office and its roaming phones do everything that phones do, and none is banned."""
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, tmp_path, **settings("enforce", backend)) as guard,
    ):
        day = a_day(lab, "198.19.90", port, NAME)
        assert day.wrong == {}
        assert guard.bans() == []
        assert state(guard)["without_name"] == 0
        assert state(guard)["seen"] > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("release", ["22"])
def test_it_observes(open_lab: Lab, transport: str) -> None:
    """Nobody is banned; the requests of a stranger are counted, and a friend that asks so is named."""
    source = f"198.19.43.{next(_numbers)}"
    with shared(open_lab, **settings("observe")) as guard, calling(open_lab, source, transport) as phone:
        before = guard.ask("status")["bare_requests"]
        assert phone.ask(request_of(b"OPTIONS", b"nobody")) is not None
        until(lambda: guard.ask("status")["bare_requests"] > before, "the attempt")
        assert phone.guess(request_of(b"REGISTER", b"alice"), PASSWORD) == 200
        until(lambda: source in guard.friends(), "the friend")
        assert phone.ask(request_of(b"OPTIONS", b"alice")) is not None
        until(lambda: source in without_name(guard), "its request for the address")
        [friend] = [row for row in state(guard)["friends"] if row["address"] == source]
        assert (friend["accounts"], friend["host"]) == (["alice"], PBX_IPV4)
        assert guard.bans() == []


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
@pytest.mark.parametrize("release", ["22"])
def test_a_rejected_scanner_is_no_alarm(open_lab: Lab, backend: str) -> None:
    """The kernel also copies what a ban rejects, so later requests do not show that the ban has no effect."""
    source = f"198.19.44.{next(_numbers)}"
    wanted = settings("enforce", backend)
    wanted["firewall"]["action"] = "port-unreachable"
    with shared(open_lab, **wanted) as guard, calling(open_lab, source, "UDP") as scanner:
        until_asking(guard)
        request = request_of(b"OPTIONS", b"nobody")
        scanner.send(request)
        until(lambda: source in guard.banned(), "the ban")
        time.sleep(GRACE)
        for _ in range(2 * ENOUGH):
            assert scanner.ask(request, 0.5) is None
        until(lambda: guard.ask("status")["bare_requests"] > ENOUGH, "the copies")
        assert guard.ask("alarms") == []
