"""A storm of forged senders against a guarded PBX with phones and a carrier, and its effects.

The forged senders are addresses of 198.19.0.0/16, which also contains phones and the carrier of this PBX.
During the storm the phones and the PBX renew their registrations, and one attacker really guesses.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from tests.support import carrier, phones
from tests.support.carrier import Carrier
from tests.support.daemon import Guard, until
from tests.support.forger import Forger, Sent, quiet
from tests.support.guarded import guarded, preferred, until_rationed
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in
from tests.support.phones import Phone, phones_at
from tests.support.process import resident
from tests.support.sip import Result

FIRST = "198.19.0.1"
CARRIER = "198.19.3.3"
PHONES = tuple(f"198.19.{third}.77" for third in range(0, 8, 2))
ATTACKER = "198.18.1.66"
OTHER_PORT = 7060
GUESSES = 2_000
_MINUTE = 60.0
_WHOLE = ("full", "sip")


@define
class Storm:
    """The effects of a storm."""

    sent: Sent = field(factory=lambda: Sent(0, 0.0))
    bans: list[dict[str, Any]] = field(factory=list)
    alarms: list[dict[str, Any]] = field(factory=list)
    alarm_lines: int = 0
    """The number of log lines about the alarm."""
    before: int = 0
    most: int = 0
    """The daemon's resident memory before the storm, and its maximum (bytes)."""
    guesses: Result = field(factory=Result)
    renewed: list[int] = field(factory=list)
    """The statuses of the phones' renewals, during the storm and after it."""
    carried: int = 0
    """How often the PBX could register at its carrier since the storm began."""
    passes: dict[str, bool] = field(factory=dict)
    """Whether packets of a banned bystander still arrive, by the kind of packet."""
    drops: int = 0
    """The number of packets that the limiter dropped."""

    @property
    def full(self) -> list[str]:
        """The addresses with a full ban, of whatever scope, except the attacker's."""
        return [row["address"] for row in self.bans if row["scope"] in _WHOLE and row["address"] != ATTACKER]

    @property
    def claimed(self) -> list[dict[str, Any]]:
        """The bans that only close SIP by UDP."""
        return [row for row in self.bans if row["scope"] == "sip-udp"]

    @property
    def banned_own(self) -> list[str]:
        """The addresses of the PBX's phones and carrier that a ban includes: there must be none."""
        networks = [ip_network(row["address"]) for row in self.bans]
        own = [ip_address(text) for text in (*PHONES, CARRIER)]
        return [str(address) for address in own if any(address in network for network in networks)]

    @property
    def most_in_a_minute(self) -> int:
        """The largest number of bans that began within one minute, without the attacker's."""
        began = sorted(_seconds(row["since"]) for row in self.claimed)
        first = most = 0
        for last, moment in enumerate(began):
            while moment - began[first] >= _MINUTE:
                first += 1
            most = max(most, last - first + 1)
        return most

    @property
    def lengths(self) -> set[int]:
        """How long the claimed bans last (seconds)."""
        return {int(_seconds(row["expires"]) - _seconds(row["since"]) + 0.5) for row in self.claimed}

    @property
    def stopped(self) -> list[dict[str, Any]]:
        """The attacker's ban."""
        return [row for row in self.bans if row["address"] == ATTACKER]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@frozen
class GuardedPbx:
    """A laboratory's PBX with phones and a carrier, and the daemon that guards it."""

    lab: Lab
    guard: Guard
    carrier: Carrier
    phones: Sequence[Phone]


def configured() -> dict[str, str]:
    """Return the configuration of Asterisk for the phones and the carrier."""
    texts = phones.configured()
    for name, text in carrier.configured(CARRIER).items():
        texts[name] = texts.get(name, "") + "\n" + text
    return texts


@contextmanager
def guarded_pbx(
    folder: Path,
    backend: str = "ipset",
    **settings: Any,  # noqa: ANN401 - TOML
) -> Iterator[GuardedPbx]:
    """Start everything: the phones and the PBX are registered, and the daemon knows both as friends."""
    firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {"mode": "enforce"}}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.made("22", configured()))
        quiet(lab)
        trunk = stack.enter_context(Carrier(lab, CARRIER))
        until(lambda: trunk.registered, "the PBX at its carrier")
        own = [
            phone
            for number, address in enumerate(PHONES, 1)
            for phone in stack.enter_context(phones_at(lab, address, [f"phone{number}"]))
        ]
        # Half of the phones register before the daemon starts, which must learn them from Asterisk.
        half = len(own) // 2
        assert [phone.register(expires=600) for phone in own[:half]] == [200] * half
        guard = stack.enter_context(guarded(lab, folder, firewall=firewall, **settings))
        preferred(guard)
        until_rationed(guard)
        assert [phone.register(expires=600) for phone in own[half:]] == [200] * (len(own) - half)
        until(lambda: known(guard) >= {*PHONES, CARRIER}, "all friends")
        yield GuardedPbx(lab, guard, trunk, own)


def known(guard: Guard) -> set[str]:
    """Return the addresses of the daemon's friends."""
    return {row["address"] for row in guard.ask("friends")}


def storm(here: GuardedPbx, senders: int, each: int, rate: float, *, allowed: float = 0.0) -> Storm:
    """Run a storm of ``senders`` that send ``each`` requests; a guesser begins during the last round.

    ``allowed`` is the time that the daemon has afterwards to read all events (seconds).
    """
    found = Storm(before=resident(here.guard.pid))
    registered, last_round = here.carrier.registered, senders * (each - 0.5) / rate
    forger = Forger(here.lab, FIRST, senders, each, rate)
    try:
        began = time.monotonic()
        while forger.at_work and time.monotonic() - began < last_round:
            found.most = max(found.most, resident(here.guard.pid))
            time.sleep(0.1)
        found.guesses = here.lab.attack(
            *("guess", "--number", str(GUESSES), "--sources", ATTACKER),
            # An answer may be late during the storm, and the ration lets only few through.
            *("--timeout", "1", "--silences", "8", "--reuse-nonce"),
        )
        found.renewed += [phone.register(expires=600) for phone in here.phones]
        here.carrier.register()
        found.sent = forger.sent()
    finally:
        forger.stop()
    _rest(here.guard, found, allowed)
    found.renewed += [phone.register(expires=600) for phone in here.phones]
    here.carrier.register()
    until(lambda: here.carrier.registered > registered + 1, "the PBX at its carrier again")
    found.carried = here.carrier.registered - registered
    found.bans = here.guard.bans()
    status = here.guard.status()
    found.drops = status["limiter_drops"]
    found.alarms = [alarm for alarm in status["alarms"] if alarm["code"] == "attack.spoofing"]
    found.alarm_lines = here.guard.log.count("event=alarm.attack.spoofing ")
    if found.claimed:
        found.passes = through(here.lab, _one_of(found.claimed[-1]["address"]))
    return found


def _rest(guard: Guard, found: Storm, allowed: float) -> None:
    """Wait until the daemon has read all events, at most ``allowed`` seconds."""
    events, until_then = -1, time.monotonic() + allowed
    while time.monotonic() < until_then:
        found.most = max(found.most, resident(guard.pid))
        before, events = events, sum(source["events"] for source in guard.status()["sources"])
        if events == before:
            return
        time.sleep(1.0)


def _one_of(network: str) -> str:
    """Return an address of a network that is neither a phone's nor the carrier's."""
    return next(
        str(address)
        for address in map(IPv4Address, range(int(ip_network(network)[0]), int(ip_network(network)[-1]) + 1))
        if str(address) not in {*PHONES, CARRIER}
    )


def through(lab: Lab, source: str) -> dict[str, bool]:
    """Return whether packets of an address arrive: SIP by UDP, SIP by TCP, and UDP to another port."""
    probe = ("--method", "OPTIONS", "--sources", source, "--timeout", "0.5")
    with (
        socket_in(lab.network.pbx, socket.AF_INET, socket.SOCK_DGRAM) as here,
        socket_in(lab.network.attacker, socket.AF_INET, socket.SOCK_DGRAM) as there,
    ):
        here.bind((PBX_IPV4, OTHER_PORT))
        here.settimeout(2.0)
        there.bind((source, 0))
        there.sendto(b"hello", (PBX_IPV4, OTHER_PORT))
        try:
            other = here.recv(100) == b"hello"
        except TimeoutError:
            other = False
    return {
        "SIP by UDP": lab.attack("probe", *probe).answered == 1,
        "SIP by TCP": lab.attack("probe", *probe, "--transport", "TCP").answered == 1,
        "UDP to another port": other,
    }
