"""Bans without a gap: whatever happens to the daemon, no packet of a banned sender ever arrives.

Banned senders send all the time: addresses and prefixes of both IP versions, and a denied network. Packets
of strangers show that packets arrive at all.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import Guard, until
from tests.support.door import Door
from tests.support.netns import run
from tests.support.network import Network

pytestmark = pytest.mark.kernel

BANNED = ("198.18.1.9", "198.19.7.7", "fd00:18::b9", "fd00:19::7:7")
BANS = ("198.18.1.9", "198.19.7.0/24", "fd00:18::b9", "fd00:19::/64")
DENIED = "198.18.1.8"
STRANGERS = ("198.18.1.7", "fd00:18::b7")
ROUNDS = 20
PLANS: tuple[dict[str, object], ...] = (
    {"scope": "sip", "sip_ports": ["5060/udp", "5060/tcp"]},
    {"interfaces": ["lan"], "log": True},
    {"action": "port-unreachable"},
    {"limit": {"mode": "observe"}},
    {},
)


@pytest.fixture(name="network")
def _network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(name="door")
def _door(network: Network) -> Iterator[Door]:
    with Door(network) as door:
        yield door


@contextmanager
def always_shut(door: Door) -> Iterator[None]:
    """Check that no banned packet arrives while the block runs, and during some packets after it."""
    with door.knocking(*BANNED, DENIED) as knocks:
        yield
        enough = knocks.rounds + ROUNDS
        until(lambda: knocks.rounds > enough or not knocks.going, "packets")
        assert knocks.going
    assert knocks.arrived == []
    assert door.passing(*STRANGERS) == set(STRANGERS)


def guard_of(folder: Path, network: Network, backend: str) -> Guard:
    """Return the guard of a daemon that is not running yet."""
    return Guard(folder, prefix=network.in_pbx(), firewall={"backend": backend}, deny={"networks": [DENIED]})


@pytest.mark.parametrize("backend", ["ipset", "nftables"])
def test_a_restart_a_kill_and_new_rules_leave_no_gap(
    tmp_path: Path, network: Network, door: Door, backend: str
) -> None:
    """Bans and the deny list hold while the daemon is down, starts again, and applies another plan."""
    with guard_of(tmp_path, network, backend) as guard:
        guard.must("ban", *BANS)
        with always_shut(door):
            guard.stop()
            guard.start()
            guard.kill()
            guard.start()
        assert guard.banned() == set(BANS)
        until(lambda: guard.ask("status")["firewall"]["limiter"] == "enforce", "the limiter, which waits")
        before = guard.log.count("event=firewall.changed")
        for number, plan in enumerate(PLANS, before + 1):
            with always_shut(door):
                guard.configure(firewall={"backend": backend, **plan})
                guard.reload()
                until(lambda: guard.log.count("event=firewall.changed") == number, str(plan))  # noqa: B023


def test_another_backend_takes_over_without_a_gap(tmp_path: Path, network: Network, door: Door) -> None:
    """Bans hold while the configuration changes to nftables and back; the old backend leaves nothing."""
    with guard_of(tmp_path, network, "ipset") as guard:
        guard.must("ban", *BANS)
        for now, before in (("nftables", "ipset"), ("ipset", "nftables")):
            with always_shut(door):
                guard.configure(firewall={"backend": now})
                guard.stop()
                guard.start()
            status = guard.ask("status")
            assert (status["firewall"]["backend"], status["enforced"], alarms_of(status)) == (now, 4, [])
            assert guard.banned() == set(BANS)
            assert left_of(before, network) == []


def alarms_of(status: Mapping[str, Any]) -> list[str]:
    """Return the codes of the alarms, without the one that comes after 5 s because no AMI answers here."""
    return [alarm["code"] for alarm in status["alarms"] if alarm["code"] != "source.silent"]


def left_of(backend: str, network: Network) -> list[str]:
    """Return the lines in the kernel that belong to a backend."""
    commands = {
        "ipset": ("ipset list -n", "iptables-save -t raw", "ip6tables-save -t raw"),
        "nftables": ("nft list tables inet",),
    }
    lines = [run(*network.in_pbx(*command.split())) for command in commands[backend]]
    return [line for text in lines for line in text.split("\n") if "ringfence" in line]
