"""The fates of packets: which pass the rules of a plan, which are dropped, and which are copied to the wire.

Each kind of packet is sent to or from an address at each place: in a ban, on a list, or at none. Each has an
address of its own, in a network of its own, so no limit counts it with another one.

``python -m tests.support.fates`` writes the texts of ``tests/firewall/fates`` again, from the rules of
nftables. Run it as root: the packets stay in network namespaces.
"""

import select
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

from attrs import evolve
from tests.support.cable import CABLES, far_end
from tests.support.lists import write_list
from tests.support.netns import inside, netns, run
from tests.support.nflog import copies
from tests.support.packets import OTHER, SIP, behind, opened, plan

from ringfence.features.fence.stage import FenceFilter
from ringfence.features.fleet.network_list import LIST as DECIDED
from ringfence.features.limiter.stage import Limit
from ringfence.features.ration.stage import AskingRation, Ration
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add, Backend, BanAction, FirewallPlan
from ringfence.firewall.limits import Filter, LimitMode
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.ports import Ports
from ringfence.values.ban import Scope

FOLDER = Path(__file__).parent.parent / "firewall" / "fates"
SENT = 12
"""How many packets of each kind are sent to or from an address, at once."""
IAX2, TLS, HTTPS = 4569, 5061, 8089
_GROUP = 7
_QUIET = 0.3  # seconds without a packet, after which no more are expected
_ROOM = 8 << 20  # bytes that a socket may hold
_FREEBIND = 15  # IP_FREEBIND of linux/in.h
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of asm-generic/socket.h
_CONTAINER = "10.9.9.2"

_OFF = FirewallPlan(
    sip_ports=Ports(udp=(IAX2, SIP), tcp=(SIP, TLS, HTTPS)),
    dropped=(network_lists.DENY, network_lists.EXTERNAL, DECIDED),
    containers=frozenset({ip_address(_CONTAINER)}),
)
_BASE = evolve(_OFF, log_group=_GROUP)


def _limited(mode: LimitMode, *stages: str) -> FirewallPlan:
    """Return the plan in which these stages have a mode. Each passes fewer than ``SENT`` packets at once."""
    every: dict[str, Filter] = {
        "limit": Limit(mode, rate=1, burst=4),
        "asking": AskingRation(mode, burst=5, rate=1),
        "ration": Ration(mode, burst=4, rate=1),
        "fence": FenceFilter(mode),
    }
    return _BASE.adding(*(every[name] for name in stages or every))


PLANS: Mapping[str, FirewallPlan] = {
    "bans": _OFF,
    "copies": _BASE,
    "reject": evolve(_BASE, action=BanAction.PORT_UNREACHABLE),
    "sip-ports": evolve(_BASE, every_port=False),
    "new-only": evolve(_BASE, new_only=True),
    **{
        f"{stage}-{mode}": _limited(mode, stage)
        for stage in ("limit", "ration", "asking", "fence")
        for mode in (LimitMode.OBSERVE, LimitMode.ENFORCE)
    },
    "all-observe": _limited(LimitMode.OBSERVE),
    "all-enforce": _limited(LimitMode.ENFORCE),
}
"""The plans by name."""


class Kind(NamedTuple):
    """A kind of packet: its name, its port of this host, and its payload; None: a connection is opened.

    ``leaves``: this host sends it. ``container``: a container does, or gets it.
    """

    name: str
    port: int
    payload: bytes | None = None
    leaves: bool = False
    container: bool = False


_VOICE = b"\x80\x00".ljust(172, b"v")
_REQUEST = b"REGISTER sip:198.18.0.1 SIP/2.0\r\n\r\n"
_REFUSAL = b"SIP/2.0 401 Unauthorized\r\n\r\n"
KINDS = (
    Kind("voice that arrives", OTHER, _VOICE),
    Kind("voice that leaves", OTHER, _VOICE, leaves=True),
    Kind("voice of IAX2 that arrives", IAX2, _VOICE),
    Kind("request", SIP, _REQUEST),
    Kind("ACK", SIP, b"ACK sip:198.18.0.1 SIP/2.0\r\n\r\n"),
    Kind("answer that arrives", SIP, b"SIP/2.0 200 OK\r\n\r\n"),
    Kind("refusal", SIP, _REFUSAL, leaves=True),
    Kind("404 that leaves", SIP, b"SIP/2.0 404 Not Found\r\n\r\n", leaves=True),
    Kind("success that leaves", SIP, b"SIP/2.0 200 OK\r\n\r\n", leaves=True),
    Kind("refusal from another port", OTHER, _REFUSAL, leaves=True),
    Kind("connection to SIP", SIP),
    Kind("connection to SIP by TLS", TLS),
    Kind("connection to HTTPS", HTTPS),
    Kind("connection to another port", OTHER),
    Kind("request to a container", SIP, _REQUEST, container=True),
    Kind("voice to a container", OTHER, _VOICE, container=True),
    Kind("refusal of a container", SIP, _REFUSAL, leaves=True, container=True),
    Kind("voice of a container", OTHER, _VOICE, leaves=True, container=True),
)


class Place(NamedTuple):
    """Where an address is: in a ban with a scope, and on lists."""

    name: str
    scope: Scope | None = None
    lists: tuple[NetworkList, ...] = ()


PLACES = (
    Place("nowhere"),
    *(Place(f"ban {scope}", scope) for scope in Scope),
    *(Place(str(one), lists=(one,)) for one in network_lists.every()),
    Place("ban full + allow", Scope.FULL, (network_lists.ALLOW,)),
    Place("deny + allow", lists=(network_lists.DENY, network_lists.ALLOW)),
    *(
        Place(f"external + {one}", lists=(network_lists.EXTERNAL, one))
        for one in (network_lists.FRIENDS, network_lists.ADMITTED)
    ),
    Place("decided + friends", lists=(DECIDED, network_lists.FRIENDS)),
)


class Cell(NamedTuple):
    """A kind of packet to or from an address at a place. ``number`` is in the address and in each payload."""

    kind: Kind
    place: Place
    version: int
    number: int

    @property
    def address(self) -> str:
        """The address at the far end."""
        third, fourth = divmod(self.number, 256)
        return f"198.{18 + third}.{fourth}.9" if self.version == 4 else f"fd00:18:{self.number:x}::9"

    @property
    def network(self) -> str:
        """The network of this cell alone."""
        third, fourth = divmod(self.number, 256)
        return f"198.{18 + third}.{fourth}.0/24" if self.version == 4 else f"fd00:18:{self.number:x}::/48"

    @property
    def payload(self) -> bytes:
        """The datagram, which ends with the mark of the cell."""
        assert self.kind.payload is not None
        return self.kind.payload + self.mark

    @property
    def mark(self) -> bytes:
        """The end of this cell's datagrams."""
        return b"#%d.%d" % (self.version, self.number)


CELLS = tuple(
    Cell(kind, place, version, number)
    for version in (4, 6)
    for number, (kind, place) in enumerate(
        ((kind, place) for kind in KINDS for place in PLACES if version == 4 or not kind.container), start=1
    )
)
_CABLES = {4: CABLES["IPv4"], 6: CABLES["IPv6"]}


class Fates:
    """A cable to the addresses of all cells, and a container behind this host.

    ``far`` and ``container`` are the namespaces.
    """

    def __init__(self, far: str, container: str) -> None:
        self._far = far
        self._container = container
        for line in ("198.18.0.0/16", "198.19.0.0/16"):
            run("ip", "route", "replace", line, "via", CABLES["IPv4"].banned, "dev", "near0", "onlink")
        run(
            "ip",
            "-6",
            "route",
            "replace",
            "fd00:18::/32",
            "via",
            CABLES["IPv6"].banned,
            "dev",
            "near0",
            "onlink",
        )
        for version in (4, 6):
            routes = (
                f"route replace local {one.network} dev lo\n" for one in CELLS if one.version == version
            )
            run("ip", "-n", far, f"-{version}", "-batch", "-", text="".join(routes))

    def of(self, backend: Backend, wanted: FirewallPlan) -> Mapping[Cell, str]:
        """Put the rules of ``wanted`` in place, with all bans and lists. Return the fates of all packets."""
        backend.flush()
        plan(backend, wanted)
        changes = [
            Add(ip_network(one.address), 600, one.place.scope) for one in CELLS if one.place.scope is not None
        ]
        assert {result.error for result in backend.apply(changes)} == {None}
        for which in network_lists.every():
            write_list(backend, which, [ip_network(one.address) for one in CELLS if which in one.place.lists])
        with ExitStack() as stack:
            until = stack.enter_context(copies(_GROUP)) if wanted.log_group is not None else None
            passed = self._arrived(stack)
            copied = [] if until is None else until(_last())
        prefixes: dict[bytes, Counter[str]] = {}
        for prefix, payload in copied:
            prefixes.setdefault(b"#" + payload.rpartition(b"#")[2], Counter())[prefix] += 1
        return {one: _fate(one, passed[one], prefixes.get(one.mark, Counter())) for one in CELLS}

    def _arrived(self, stack: ExitStack) -> Counter[Cell]:
        """Send all packets; return how many of each cell arrive, or whether its connection opens (1)."""
        here = self._here(stack)
        there = {cell: self._there(stack, cell) for cell in CELLS}
        marks = {cell.mark: cell for cell in CELLS}
        for cell in CELLS:
            if cell.kind.payload is None:
                with suppress(BlockingIOError):
                    there[cell].connect((_CABLES[cell.version].here, cell.kind.port))
        for _ in range(SENT):
            for cell in CELLS:
                if cell.kind.payload is not None:
                    local = here[cell.version, cell.kind.port, cell.kind.container]
                    sender, receiver = (local, there[cell]) if cell.kind.leaves else (there[cell], local)
                    with suppress(OSError):  # EPERM, or an ICMP error of an earlier one
                        sender.sendto(cell.payload, receiver.getsockname())
        arrived: Counter[Cell] = Counter()
        ends = [*here.values(), *(one for cell, one in there.items() if cell.kind.leaves)]
        for end in ends:
            for datagram in _queued(end):
                arrived[marks[b"#" + datagram.rpartition(b"#")[2]]] += 1
        for cell in _opened({one: there[one] for one in CELLS if one.kind.payload is None}):
            arrived[cell] = 1
        return arrived

    def _here(self, stack: ExitStack) -> Mapping[tuple[int, int, bool], socket.socket]:
        """Return the UDP sockets of this host and of the container, by IP version and port; listen by TCP."""
        found = {}
        for version, cable in _CABLES.items():
            for port in (SIP, OTHER, IAX2):
                found[version, port, False] = _bound(stack, cable.family, cable.here, port)
            for port in (SIP, OTHER, TLS, HTTPS):
                listener = stack.enter_context(socket.socket(cable.family, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((cable.here, port))
                listener.listen(len(CELLS))
        with inside(self._container):
            for port in (SIP, OTHER):
                found[4, port, True] = _bound(stack, socket.AF_INET, _CONTAINER, port)
        return found

    def _there(self, stack: ExitStack, cell: Cell) -> socket.socket:
        """Return the socket at the address of a cell."""
        family = _CABLES[cell.version].family
        with inside(self._far):
            if cell.kind.payload is not None:
                return _bound(stack, family, cell.address, 0)
            one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        one.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        one.bind((cell.address, 0))
        one.setblocking(False)  # noqa: FBT003 - the name says it
        return one


def _last() -> bytes:
    """Send a datagram that the wire gets in each plan, and return it."""
    last, cable = b"SIP/2.0 404 the last", CABLES["IPv4"]
    with ExitStack() as stack:
        _bound(stack, cable.family, cable.here, 0).sendto(last, (cable.other, OTHER))
    return last


def _bound(stack: ExitStack, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """Return a UDP socket that does not block, with room for many datagrams."""
    one = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    one.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)  # for IPv6
    one.bind((address, port))
    one.setblocking(False)  # noqa: FBT003 - the name says it
    return one


def _queued(end: socket.socket) -> Iterator[bytes]:
    """Yield the datagrams in the queue of a socket."""
    while True:
        try:
            yield end.recv(2048)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error for an earlier datagram
            continue


def _opened(connecting: Mapping[Cell, socket.socket]) -> Iterator[Cell]:
    """Yield the cells whose connections open, until no other one opens for a moment."""
    waiting, poll = {one.fileno(): cell for cell, one in connecting.items()}, select.poll()
    for number in waiting:
        poll.register(number, select.POLLOUT)
    while ready := poll.poll(_QUIET * 1000):
        for number, _ in ready:
            poll.unregister(number)
            if connecting[waiting[number]].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                yield waiting[number]


def _fate(cell: Cell, arrived: int, copied: Counter[str]) -> str:
    """Return what became of the packets of a cell, in words; ``copied``: how many copies have each prefix."""
    if cell.kind.payload is None:
        return "opens" if arrived else "does not open"
    words = [{0: "dropped", SENT: "passes"}.get(arrived, "rationed")]
    for prefix, number in sorted(copied.items()):
        part = "" if number == SENT else "partly "
        words.append(f"{part}copied as {prefix}" if prefix else f"{part}copied")
    return ", ".join(words)


def text_of(found: Mapping[Cell, str]) -> str:
    """Return the fates of each kind, with the places of the addresses; both IP versions should be equal."""
    lines = []
    for kind in KINDS:
        by_fate: dict[str, dict[str, list[str]]] = {}
        for cell, fate in found.items():
            if cell.kind is kind:
                versions = by_fate.setdefault(fate, {}).setdefault(cell.place.name, [])
                versions.append(f"IPv{cell.version}")
        lines.append(f"{kind.name}{' (IPv4)' * kind.container}")
        for fate, places in by_fate.items():
            alone = (f" ({one[0]})" * (len(one) == 1 and not kind.container) for one in places.values())
            names = ", ".join(f"{name}{only}" for name, only in zip(places, alone, strict=True))
            lines.append(f"  {fate}: {names}")
        lines.append("")
    return "\n".join(lines)


@contextmanager
def laid(flavour: str) -> Iterator[tuple[Fates, Backend]]:
    """Yield the cable, and the backend nftables or ipset with a flavour of iptables; in a namespace."""
    with netns(), opened(flavour) as backend, far_end() as far, behind(far) as container:
        yield Fates(far, container), backend


if __name__ == "__main__":
    with laid("nftables") as (fates, first):
        for name, wanted in PLANS.items():
            (FOLDER / f"{name}.txt").write_text(text_of(fates.of(first, wanted)), "utf-8")
