"""What a packet costs the host, with the rules of ringfence against none.

A process sends datagrams over a cable between two namespaces, and its processor time is measured. The kernel
carries such a packet to the end within the sender's call. So the time has the sender's part and the
receiver's, and the rules at both hooks of the guarded namespace. One round measures each kind of packet
without rules and with each backend, in turn. The medians of the rounds are compared.

A packet of voice has 172 bytes: 20 ms of G.711 with its header. Its ports are none of Asterisk's.
"""

import resource
import socket
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from tests.bench.figures import Figure
from tests.support.cable import CABLES, far_end
from tests.support.lists import write_list
from tests.support.netns import inside, netns

from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fence.stage import FenceFilter
from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall import make_backend, network_lists
from ringfence.firewall.contract import Add, Backend, FirewallPlan
from ringfence.firewall.limits import LimitMode

ROUNDS = 5
MOST_BY_DEFAULT, MOST_LOADED = 1.35, 1.55
"""The time of a packet of voice, of that without rules.

Loaded are two look-ups more: of 250 000 external networks, and of the connection for the fence (0.4 µs each).
"""
PACKETS = 40_000
VOICE, SIP = 16_000, 5_060
BANS, FETCHED = 100_000, 250_000
_CABLE = CABLES["IPv4"]
_MEDIA = CABLES["IPv4 prefix"].banned  # of a server for media, which is a stranger
_BODY = b"\x80" + bytes(171)
_BACKENDS = ("nftables", "ipset")

DEFAULTS = FirewallPlan(
    log_group=21_063,
    wss=(8089,),
    added=(Limit(LimitMode.ENFORCE), AskingRation(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE)),
)


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure packets of voice, of a phone and of a banned sender, with little and with much to look up."""
    for loaded, most in ((False, MOST_BY_DEFAULT), (True, MOST_LOADED)):
        took = _rounds(loaded=loaded)
        for kind, bare in took["none"].items():
            for name in _BACKENDS:
                ratio = statistics.median(took[name][kind]) / statistics.median(bare)
                state = "100 000 bans, 250 000 external networks and a fence" if loaded else "defaults"
                goal = most if "voice" in kind else 0.0
                yield Figure(
                    f"{kind}, {name}, {state}: time of a processor, against no rules",
                    f"{ratio:.2f} times ({_micro(took[name][kind])}, n={ROUNDS})",
                    f"≤ {goal} times" if goal else "",
                    ratio <= goal if goal else None,
                    f"without rules: {_micro(bare)}",
                )


def _micro(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.2f} µs"


def _rounds(*, loaded: bool) -> Mapping[str, Mapping[str, list[float]]]:
    """Return the seconds of a packet in each round, by the name of the backend and the kind of packet."""
    took: dict[str, dict[str, list[float]]] = {name: {} for name in ("none", *_BACKENDS)}
    for _ in range(ROUNDS):
        for name, kinds in took.items():
            with netns(), far_end() as far, _guarded(name, loaded=loaded):
                for kind, measure in _KINDS.items():
                    kinds.setdefault(kind, []).append(measure(far))
    return took


@contextmanager
def _guarded(name: str, *, loaded: bool) -> Iterator[None]:
    """Install the rules of a backend, or none, while the block runs."""
    if name == "none":
        yield
        return
    backend = make_backend(name, DEFAULTS.adding(FenceFilter(LimitMode.ENFORCE)) if loaded else DEFAULTS)
    backend.open()
    try:
        backend.apply([Add(ip_network(_CABLE.network), 3_600)])
        write_list(backend, network_lists.FRIENDS, [ip_network(_CABLE.other)])
        if loaded:
            _fill(backend)
        yield
    finally:
        backend.flush()
        backend.close()


def _fill(backend: Backend) -> None:
    bans = [Add(ip_network((0x0B000000 + 7 * number, 32)), 3_600) for number in range(BANS)]
    for at in range(0, len(bans), 5_000):
        backend.apply(bans[at : at + 5_000])
    write_list(
        backend, network_lists.EXTERNAL, [IPv4Network((0x50000000 + 512 * n, 24)) for n in range(FETCHED)]
    )
    write_list(backend, INSIDE, [IPv4Network("198.18.0.0/15")])


@contextmanager
def _ends(far: str, address: str, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a socket here, and one of ``address`` at the far end, both at ``port``. Neither is read."""
    with socket.socket(_CABLE.family, socket.SOCK_DGRAM) as here:
        here.bind((_CABLE.here, port))
        with inside(far):
            there = socket.socket(_CABLE.family, socket.SOCK_DGRAM)
        with there:
            there.bind((address, port))
            yield here, there


def packet_time(sender: socket.socket, target: tuple[str, int]) -> float:
    """Return the seconds of a processor that a packet takes."""
    sender.connect(target)
    _send(sender, PACKETS // 10)
    before = _processor()
    _send(sender, PACKETS)
    return (_processor() - before) / PACKETS


def _send(sender: socket.socket, times: int) -> None:
    send = sender.send
    for _ in range(times):
        try:
            send(_BODY)
        except PermissionError:  # the target is banned
            continue


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime


def _leaving(address: str, port: int, far: str) -> float:
    with _ends(far, address, port) as (here, there):
        return packet_time(here, there.getsockname())


def _arriving(address: str, port: int, far: str) -> float:
    with _ends(far, address, port) as (here, there):
        return packet_time(there, here.getsockname())


_KINDS: Mapping[str, Callable[[str], float]] = {
    "a packet of voice leaves": partial(_leaving, _MEDIA, VOICE),
    "a packet of voice arrives": partial(_arriving, _MEDIA, VOICE),
    "an answer to a phone leaves": partial(_leaving, _CABLE.other, SIP),
    "a phone's request arrives": partial(_arriving, _CABLE.other, SIP),
    "an answer to a banned sender is refused": partial(_leaving, _CABLE.banned, SIP),
    "a request of a banned sender arrives": partial(_arriving, _CABLE.banned, SIP),
}
