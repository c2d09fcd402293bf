"""What a packet costs the host, with the rules of ringfence against none.

A process sends datagrams over a cable between two namespaces, and its processor time is measured. The kernel
carries such a packet to the end within the sender's call. So the time has the sender's part and the
receiver's, and the rules at both hooks of the guarded namespace. One round measures each kind of packet
without rules and with each backend, within a tenth of a second, because a machine's speed changes from one
second to the next. The ratio is that of one round.

A packet of voice has 172 bytes: 20 ms of G.711 with its header. Its ports are none of Asterisk's.
"""

import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from tests.bench.figures import Figure, spread
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

ROUNDS = 201
_WARM = 3
"""Rounds before the first one that counts."""
MOST_BY_DEFAULT, MOST_LOADED = (1.35, 0.85), (1.65, 1.25)
"""The time of a packet of voice: of that without rules, or else how many microseconds more.

Loaded are two look-ups more: of 250 000 external networks, and of the connection for the fence (0.4 µs each).
The ratio alone says little: with ipset, one processor took 3.2 µs for a bare packet and 1.0 µs for the rules
(1.33 times), a faster one 1.3 and 0.7 µs (1.56 times). A hundred calls are 20 000 packets a second: with
0.85 µs more for each, they take 1.7 % of a processor more.
"""
PACKETS = 1_000
"""The packets of each kind in a round."""
VOICE, SIP = 16_000, 5_060
BANS, FETCHED = 100_000, 250_000
_CABLE = CABLES["IPv4"]
_MEDIA = CABLES["IPv4 prefix"].banned  # of a server for media, which is a stranger
_BODY = b"\x80" + bytes(171)
_BARE = "none"
_BACKENDS = ("nftables", "ipset")
_GUARDS = (_BARE, *_BACKENDS)
_KINDS: Mapping[str, tuple[str, int, bool]] = {
    "a packet of voice leaves": (_MEDIA, VOICE, True),
    "a packet of voice arrives": (_MEDIA, VOICE, False),
    "an answer to a phone leaves": (_CABLE.other, SIP, True),
    "a phone's request arrives": (_CABLE.other, SIP, False),
    "an answer to a banned sender is refused": (_CABLE.banned, SIP, True),
    "a request of a banned sender arrives": (_CABLE.banned, SIP, False),
}
"""The address of the far end, the port of both ends, and whether the packet leaves the guarded host."""

DEFAULTS = FirewallPlan(
    log_group=21_063,
    wss=(8089,),
    added=(Limit(LimitMode.ENFORCE), AskingRation(LimitMode.ENFORCE), Ration(LimitMode.ENFORCE)),
)


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure packets of voice, of a phone and of a banned sender, with little and with much to look up."""
    for loaded, (times, micro) in ((False, MOST_BY_DEFAULT), (True, MOST_LOADED)):
        state = "100 000 bans, 250 000 external networks and a fence" if loaded else "defaults"
        for kind, took in _rounds(loaded=loaded).items():
            for name in _BACKENDS:
                ratios = [ours / bare for ours, bare in zip(took[name], took[_BARE], strict=True)]
                pairs = zip(took[name], took[_BARE], strict=True)
                more = statistics.median(1e6 * (ours - bare) for ours, bare in pairs)
                reached = statistics.median(ratios) <= times or more <= micro
                yield Figure(
                    f"{kind}, {name}, {state}: time of a processor, against no rules",
                    f"{spread(ratios, ' times')} ({_micro(took[name])}, {more:.2f} µs more)",
                    f"median ≤ {times} times, or ≤ {micro} µs more" if "voice" in kind else "",
                    reached if "voice" in kind else None,
                    f"without rules: {_micro(took[_BARE])}",
                )


def _micro(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.2f} µs"


def _rounds(*, loaded: bool) -> Mapping[str, Mapping[str, list[float]]]:
    """Return the seconds of a packet in each round, by the kind of packet and the name of the backend."""
    took: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in _GUARDS} for kind in _KINDS}
    with ExitStack() as stack:
        senders: dict[tuple[str, str], socket.socket] = {}
        for name in _GUARDS:
            stack.enter_context(netns())
            far = stack.enter_context(far_end())
            stack.enter_context(_guarded(name, loaded=loaded))
            for kind, (address, port, leaves) in _KINDS.items():
                here, there = stack.enter_context(_ends(far, address, port))
                senders[kind, name] = here if leaves else there
        for number in range(_WARM + ROUNDS):
            for (kind, name), sender in senders.items():
                seconds = packet_time(sender)
                if number >= _WARM:
                    took[kind][name].append(seconds)
    return took


@contextmanager
def _guarded(name: str, *, loaded: bool) -> Iterator[None]:
    """Install the rules of a backend, or none, while the block runs."""
    if name == _BARE:
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
    """Yield a socket here, and one of ``address`` at the far end, both at ``port``, connected, never read."""
    with _bound(_CABLE.here, port) as here:
        with inside(far):
            there = _bound(address, port)
        with there:
            here.connect(there.getsockname())
            there.connect(here.getsockname())
            yield here, there


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(_CABLE.family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several far ends have one port here
    made.bind((address, port))
    return made


def packet_time(sender: socket.socket) -> float:
    """Return the seconds of a processor that a packet takes."""
    before = time.thread_time()
    send = sender.send
    for _ in range(PACKETS):
        try:
            send(_BODY)
        except PermissionError:  # the target is banned
            continue
    return (time.thread_time() - before) / PACKETS
