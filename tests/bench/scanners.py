"""The answers that scanners get before their ban, if strangers must ask for the name of the PBX.

The scanners are those of sipvicious: svmap looks for servers, svwar for accounts, svcrack for passwords. Each
trial has an address of its own. All rules are on, with the limiter and the rations as by default. The rows
are compared with a guard without the rule. The ban comes in a millisecond or two, in which Asterisk answers
what has arrived. So the median counts: a busy machine is later.
"""

import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Figure, spread
from tests.bench.testbed import PLACED, Bed, bed, defended, until_defended
from tests.support import netns
from tests.support.network import PBX_IPV4
from tests.support.phones import NAME
from tests.support.scanners import NEIGHBOURS, of_sipvicious, run_from

TRIALS = 3
BACKENDS = ("ipset", "nftables")
SECONDS = 3
"""Seconds after which a scanner is stopped, although it goes on."""
SCANNERS: Mapping[str, tuple[str, ...]] = {
    "svmap": ("--method", "OPTIONS", PBX_IPV4),  # it scans each address that it is given, so this one twice
    "svwar": ("--method", "REGISTER", "--force", "--extensions", "100-399"),
    "svcrack": ("--username", "100", "--range", "1-300"),
}
_IPV4 = 0x0800  # the protocol of packets with IPv4, in Ethernet


class Answers:
    """Counts the SIP answers of the PBX that reach the attackers' side, by their receiver."""

    def __init__(self, namespace: str) -> None:
        self.to: dict[str, int] = {}
        with netns.inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV4))
        self._socket.settimeout(0.1)
        self._over = False
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def close(self) -> None:
        """Stop counting."""
        self._over = True
        self._thread.join()
        self._socket.close()

    def _count(self) -> None:
        while not self._over:
            try:
                packet, where = self._socket.recvfrom(2_048)
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            sent = where[2] != socket.PACKET_OUTGOING and socket.inet_ntoa(packet[12:16]) == PBX_IPV4
            if sent and packet[header + 8 :].startswith(b"SIP/2.0 "):
                receiver = socket.inet_ntoa(packet[16:20])
                self.to[receiver] = self.to.get(receiver, 0) + 1


@contextmanager
def counting(here: Bed) -> Iterator[Answers]:
    """Count answers until the block ends."""
    answers = Answers(here.lab.network.attacker)
    try:
        yield answers
    finally:
        answers.close()


def measured(here: Bed, network: int) -> dict[str, list[int]]:
    """Return the number of answers in each trial of each scanner, from addresses of this network."""
    found: dict[str, list[int]] = {}
    with counting(here) as answers:
        for number, (name, options) in enumerate(SCANNERS.items()):
            path = of_sipvicious(name)
            sources = [f"198.19.{network}.{10 * number + trial + 1}" for trial in range(TRIALS)]
            for source in sources if path is not None else ():
                run_from(here.lab.network, source, [path or "", *options, PBX_IPV4], SECONDS)
                time.sleep(0.5)
            found[name] = [answers.to.get(source, 0) for source in sources]
    return found


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    if any(of_sipvicious(name) is None for name in SCANNERS):
        why = "sipvicious is missing: `make lab` unpacks it"
        yield Figure(
            "answers that the scanners of sipvicious get before the ban", why, "measured", reached=False
        )
        return
    for backend in BACKENDS:
        found: list[dict[str, list[int]]] = []
        for mode in ("enforce", "off"):
            table = {"mode": mode, "domains": [NAME]}
            with bed(NEIGHBOURS, firewall=defended(backend), bare_address=table) as here:
                until_defended(here.guard)
                found.append(measured(here, 60 + len(found)))
        with_rule, without = found
        for name, answers in with_rule.items():
            yield Figure(
                what=f"answers that {name} of sipvicious gets before the ban by bare_address, {backend}",
                measured=spread(answers),
                must="median ≤ 1; without the rule more in each trial",
                reached=statistics.median(answers) <= 1 and min(without[name]) > 1,
                compared=f"without the rule: {spread(without[name])}",
                cores=PLACED,
            )
