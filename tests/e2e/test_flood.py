"""Floods at a real Asterisk: the limiter stops the flooding sender and no other."""

from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk

FLOOD = ("flood", "--method", "OPTIONS", "--rate", "400", "--window", "10000")
# No burst after a pause of the client: Asterisk's socket would overflow.
STEADY = (*FLOOD, "--window", "50", "--timeout", "5")
ONE_GUESS = ("guess", "--number", "1", "--timeout", "5")
FEW, MANY = "400", "8000"  # one second of it, and more than the limiter passes


@pytest.mark.parametrize("backend", [pytest.param("ipset", marks=pytest.mark.long), "nftables"])
def test_only_the_sender_of_a_flood_is_stopped(asterisk22: Lab, tmp_path: Path, backend: str) -> None:
    """The sender is dropped, counted, and banned from SIP by UDP; phones register, and friends continue."""
    flooder, phone, friend, observed = (f"198.19.{30 + len(backend)}.{last}" for last in (1, 2, 3, 4))
    firewall = {"backend": backend, "sip_ports": ["5060/udp", "5060/tcp"]}
    limit = {"rate": 20, "burst": 40}
    with guarded(
        asterisk22,
        tmp_path,
        firewall={**firewall, "limit": {"mode": "enforce", **limit}},
        logs=NO_LOGS,
        wire=NO_WIRE,
        allow={"networks": [friend]},
        rules={"flood": {"attempts": 2}},
    ) as guard:
        flood = asterisk22.start_attack(*FLOOD, "--number", MANY, "--sources", flooder)
        try:
            until(lambda: guard.ask("status")["limiter_drops"] > 100, "drops")
            assert asterisk22.attack("register", "--sources", phone).answered == 1
            until(lambda: guard.banned() == {flooder}, "the ban")
        finally:
            flood.stop()
        [row] = guard.bans()
        assert (row["rule"], row["scope"], row["attempts"], row["offence"]) == ("flood", "sip-udp", 2, 1)
        assert asterisk22.attack("register", "--sources", flooder).challenges_answered == 0
        # Not with a right password: a login makes the address a friend, and ends claimed bans of it.
        by_tcp = asterisk22.attack(*ONE_GUESS, "--sources", flooder, "--transport", "TCP")
        assert by_tcp.answered == 1
        dropped = guard.ask("status")["limiter_drops"]

        allowed = asterisk22.attack(*STEADY, "--number", FEW, "--sources", friend)
        assert (allowed.answered, guard.ask("status")["limiter_drops"]) == (allowed.sent, dropped)

        observing = {
            "limit": {"mode": "observe", **limit},
            "ration": {"mode": "observe", "asking": "observe"},
        }
        guard.configure(firewall={**firewall, **observing})
        guard.reload()
        until(lambda: guard.ask("status")["firewall"]["limiter"] == "observe", "the new rules")
        before = guard.ask("status")["limiter_drops"]
        seen = asterisk22.attack(*STEADY, "--number", FEW, "--sources", observed)
        assert seen.answered == seen.sent == int(FEW)
        assert guard.ask("status")["limiter_drops"] > before + 100
        assert guard.banned() == {flooder}


@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_a_flood_by_tcp_is_banned_by_tcp(asterisk22: Lab, tmp_path: Path, backend: str) -> None:
    """A flood by TCP causes a ban of TCP, and the sender gets no more answers by TCP; UDP still works."""
    flooder = f"198.19.{40 + len(backend)}.1"
    with guarded(
        asterisk22,
        tmp_path,
        firewall={
            "backend": backend,
            "sip_ports": ["5060/udp", "5060/tcp"],
            "limit": {"mode": "enforce", "rate": 20, "burst": 40},
        },
        logs=NO_LOGS,
        wire=NO_WIRE,
        rules={"flood": {"attempts": 2}},
    ) as guard:
        flood = asterisk22.start_attack(*FLOOD, "--number", MANY, "--sources", flooder, "--transport", "TCP")
        try:
            until(lambda: guard.banned() == {flooder}, "the ban")
        finally:
            flood.stop()
        [row] = guard.bans()
        assert (row["rule"], row["scope"], row["attempts"], row["offence"]) == ("flood", "sip-tcp", 2, 1)
        assert asterisk22.attack(*ONE_GUESS, "--sources", flooder).answered == 1
        by_tcp = ("guess", "--number", "1", "--sources", flooder, "--transport", "TCP")
        assert asterisk22.attack(*by_tcp).answered == 0
        asterisk22.hang_up(flooder)  # its answers, sent again after the ban, would be news to the next daemon
