"""Finds likely reasons why a ban has no effect, each with its fix, from facts about this host.

The rules drop packets that pass through ringfence's network namespace with the sender's address. So a ban has
no effect if packets take another path, or if a device on their path replaces their source address. ``gather``
inspects the host, and ``likely_causes`` draws the conclusions. The firewall itself reports damaged rules
(``Health.damage``).

No process is started. The daemon sees little of other processes, because its systemd unit hides them, so
other traces are used too. For example, if a container has its own network card (macvlan), this card is in
another network namespace. But its hardware address is in the forwarding table of its parent card, which is
visible here.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import frozen
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ringfence.errors import HostError
from ringfence.host.listening import listening_sockets
from ringfence.host.processes import network_of, processes
from ringfence.host.routes import read_gateways
from ringfence.model import Address, Network
from ringfence.netlink.sock_diag import port_of

EVERY = 60.0
"""Seconds for which the facts about the host are reused."""


@frozen
class Observations:
    """What the daemon observed about a ban that has no effect.

    ``attempts`` is the number of attempts of the banned address after its ban, ``others`` the number of all
    other attempts.
    ``ports`` are some of Asterisk's ports on this host, such as that of its manager interface; none if
    Asterisk is known to be elsewhere.
    """

    attempts: int = 0
    others: int = 0
    ports: tuple[int, ...] = ()


@frozen
class Facts:
    """The visible facts about this host.

    A *link* is a network interface. ``own`` are this host's addresses, each with the name of its link.
    ``bridges`` are the links that are bridges. ``gateways`` are this host's gateways, with descriptions.
    ``listening`` are the ports on which any program listens. ``asterisk_here``: a process named ``asterisk``
    is visible in this network namespace; ``asterisk_elsewhere``: in another one. ``docker_proxy``: the
    program docker-proxy runs. ``cards`` are links that receive packets for a card in another network
    namespace (macvlan). ``xdp`` are links whose packets an XDP program handles first.
    """

    own: Mapping[Address, str] = {}
    bridges: frozenset[str] = frozenset()
    gateways: Mapping[Network, str] = {}
    listening: frozenset[int] = frozenset()
    asterisk_here: bool = False
    asterisk_elsewhere: bool = False
    docker_proxy: bool = False
    cards: tuple[str, ...] = ()
    xdp: tuple[str, ...] = ()


def likely_causes(address: Address, seen: Observations, facts: Facts) -> list[str]:
    """Return reasons why a ban of ``address`` may not work, the likeliest first; at least one."""
    causes = (
        _own_name(address, facts),
        _proxy(address, seen),
        _elsewhere(seen, facts),
        _cards_of_containers(facts),
        _xdp(facts),
    )
    return [cause for cause in causes if cause] or [_unknown(address)]


def _own_name(address: Address, facts: Facts) -> str:
    """Return the cause if ``address`` belongs to this host or to a gateway; otherwise "".

    Attempts come from such an address if the host or the gateway replaces the callers' addresses by its own.
    """
    link = facts.own.get(address)
    if link in facts.bridges:
        runs = " (docker-proxy runs here)" if facts.docker_proxy else ""
        return (
            f"{address} is this host's own address on the bridge {link}: callers reach a container through a "
            f"proxy of this host{runs}, which puts its own address in place of theirs; fix: "
            '"userland-proxy": false in /etc/docker/daemon.json and restart docker, or give Asterisk\'s '
            "container the host's network"
        )
    if link is not None:
        return (
            f"{address} is this host's own address on {link}: something on this host hands calls on in its "
            "own name (a proxy, a tunnel, NAT); fix: have it keep the callers' addresses, or ban there"
        )
    gateway = next((what for network, what in facts.gateways.items() if address in network), None)
    if gateway is None:
        return ""
    return (
        f"{address} is {gateway}: it hands calls on in its own name (a container's host with docker's "
        "userland proxy, or a router with NAT); fix: run ringfence where the callers' addresses are "
        "still seen, or have it keep them"
    )


# Python's ``is_private`` is not used: it includes the networks for documentation and for benchmarks.
_PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10")
)


def _proxy(address: Address, seen: Observations) -> str:
    if seen.others or not seen.attempts or not any(address in network for network in _PRIVATE):
        return ""
    return (
        f"every attempt comes from {address}, a private address: a proxy or session border controller in "
        "front of this PBX hands on the calls of others; fix: put it into [allow] networks, and ban there"
    )


def _elsewhere(seen: Observations, facts: Facts) -> str:
    """Return the cause if packets reach Asterisk without passing the rules; otherwise ""."""
    fix = (
        "what reaches it past this host's routing (macvlan, ipvlan, a card of its own) does not pass the "
        "rules here; fix: run ringfence in Asterisk's network namespace"
    )
    if facts.asterisk_elsewhere and not facts.asterisk_here:
        return f"Asterisk runs in another network namespace than ringfence (a container): {fix}"
    if seen.ports and not facts.listening.intersection(seen.ports):
        ports = _listed([str(port) for port in seen.ports])
        return (
            f"nothing listens on port {ports} in ringfence's network namespace, so Asterisk is in another "
            f"one (a container) or on another host: {fix}"
        )
    return ""


def _cards_of_containers(facts: Facts) -> str:
    if not facts.cards:
        return ""
    return (
        f"a container has a network card of its own on {_listed(facts.cards)} (macvlan), and what is sent to "
        "it does not pass the rules of this host; fix: run ringfence in that container's network namespace"
    )


def _xdp(facts: Facts) -> str:
    if not facts.xdp:
        return ""
    return (
        f"an XDP program is attached to {_listed(facts.xdp)}: what it hands on by itself does not pass the "
        "rules of this host; fix: ban there, or detach it (ip link set DEVICE xdp off)"
    )


def _unknown(address: Address) -> str:
    return (
        f"nothing on this host explains it: {address} may be named by text that its sender wrote, or its "
        "packets take a way past the rules (a bridge's other ports, tc); look where they come in: "
        f"tcpdump -ni any host {address}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


class Diagnosis:
    """Inspects this host, at most once a minute. A thread does that, because it takes some milliseconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._looked: float | None = None
        self._facts = Facts()

    async def likely_causes(self, address: Address, seen: Observations) -> list[str]:
        """Return reasons why a ban of ``address`` may not work, the likeliest first; at least one."""
        async with self._lock:
            now = self._clock()
            if self._looked is None or now - self._looked >= EVERY:
                self._facts = await asyncio.to_thread(gather)
                self._looked = now
        return likely_causes(address, seen, self._facts)


def gather() -> Facts:
    """Inspect this host. Facts that cannot be read are left out. Do not call it in a running event loop."""
    own: dict[Address, str] = {}
    links: dict[int, _Link] = {}
    cards: tuple[str, ...] = ()
    gateways: Mapping[Network, str] = {}
    try:
        with IPRoute() as route:
            links = {message["index"]: _link(message) for message in route.get_links()}
            own = _own_addresses(route.get_addr(), links)
            cards = _cards(route.fdb("dump"), links)
        gateways = read_gateways()
    except (HostError, NetlinkError, OSError):
        pass  # another package reports this error; the diagnosis continues without these facts
    here = network_of()
    asterisks = {network_of(process) for process in processes("asterisk")} - {""}
    return Facts(
        own=own,
        bridges=frozenset(link.name for link in links.values() if link.kind == "bridge"),
        gateways=gateways,
        listening=_listening(),
        asterisk_here=here in asterisks,
        asterisk_elsewhere=bool(asterisks - {here}),
        docker_proxy=any(True for _ in processes("docker-proxy")),
        cards=cards,
        xdp=tuple(sorted(link.name for link in links.values() if link.xdp)),
    )


@frozen
class _Link:
    """A network interface: ``hardware`` is its hardware address."""

    name: str
    kind: str
    hardware: str
    xdp: bool


# The forwarding tables of these kinds of links list other hosts, not network cards (macvlan) on the link.
_TABLES_OF_OTHERS = frozenset({"bridge", "vxlan", "geneve"})
_PERMANENT, _SELF = 0x80, 0x02  # NUD_PERMANENT, NTF_SELF
_NOBODY = "00:00:00:00:00:00"


def _link(message: Any) -> _Link:  # noqa: ANN401 - pyroute2 has no types
    info, xdp = message.get("linkinfo"), message.get("xdp")
    return _Link(
        name=message.get("ifname") or str(message["index"]),
        kind=(info.get("kind") if info else None) or "",
        hardware=message.get("address") or "",
        xdp=bool(xdp and xdp.get("attached")),
    )


def _own_addresses(messages: Any, links: Mapping[int, _Link]) -> dict[Address, str]:  # noqa: ANN401 - as above
    own = {}
    for message in messages:
        address = message.get("local") or message.get("address")
        link = links.get(message["index"])
        if address and link is not None:
            own[ip_address(address)] = link.name
    return own


def _cards(messages: Any, links: Mapping[int, _Link]) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """Return the links that receive packets for a network card in another network namespace.

    ``messages`` are the entries of the forwarding tables.
    """
    known = {link.hardware for link in links.values()} | {_NOBODY}
    found = set()
    for message in messages:
        hardware, link = message.get("lladdr"), links.get(message["ifindex"])
        if link is None or not hardware or hardware in known or link.kind in _TABLES_OF_OTHERS:
            continue
        one = int(hardware[:2], 16) & 1 == 0  # an address of one card, not a multicast address
        if one and message["state"] & _PERMANENT and message["flags"] & _SELF:
            found.add(link.name)
    return tuple(sorted(found))


def _listening() -> frozenset[int]:
    protocols = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    try:
        return frozenset(
            port_of(row.local_port) for protocol in protocols for row in listening_sockets(protocol)
        )
    except OSError:
        return frozenset()
