"""The interface between ringfence and a firewall: the methods of a backend and their values.

All methods are synchronous. One netlink exchange takes some ten microseconds. A handover to another thread
takes longer, and an attacker sends a guess every 300 µs. Only ``open``, ``replace_list_in_steps``,
``counters`` and ``flush`` may start a process (the platform's own tool). These four calls are rare.

The results are what the kernel confirmed, element by element. A missing answer is never taken as success.

A packet passes the rules in this order. First, networks on the administrator's allow list are never dropped.
Then come the bans, the deny list and the limiter. Then comes the rule that copies the requests of observed
addresses. The log rules for the wire come last, because a challenge that was dropped proves nothing. (The
wire is the NFLOG capture of outgoing challenges.)
"""

import enum
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Protocol

from attrs import fields, frozen

from ringfence import event_values
from ringfence.errors import FirewallError
from ringfence.model import Address, Network, Scope
from ringfence.networks import IPV6_SENDER

PROBE_PORT = 21_063
"""The UDP port on which ``probe.py`` tests bans if a full ban covers the SIP ports only.

Such a ban covers this port too, and nothing else listens there. The number is "RG".
"""

OBSERVE_SECONDS = 60
"""Seconds for which the requests of an address are copied after the last :meth:`Backend.observe` for it."""
OBSERVE_MOST = 4_096
"""The maximum number of addresses of each IP version that are observed at the same time."""
OBSERVE_RATE = 100
"""The maximum number of copied requests a second, and in one burst, over all observed addresses."""
OBSERVE_PREFIX = "observed"
"""The NFLOG prefix of a copied request; copied answers have none."""


MIN_TIMEOUT, MAX_TIMEOUT = 1, 2_147_483
"""The shortest and the longest timeout of a ban in seconds.

They are those of ipset, where 0 means no timeout, and which clamps silently at (UINT_MAX >> 1) milliseconds.
"""

EVERY_ADDRESS = FirewallError("a /0 is every address: the kernel bans none")
"""The error of a ban of a /0."""
SET_FULL = "is full; fix: raise max_bans in [firewall], then `ringfence off` and `ringfence on`"
"""The end of the error for a set without room."""


class BanAction(enum.StrEnum):
    """The treatment of packets from a banned address. Packets to a banned address are always dropped."""

    DROP = "drop"
    PORT_UNREACHABLE = "port-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"
    TCP_RESET = "tcp-reset"  # for TCP; other packets are dropped


class LimitMode(enum.StrEnum):
    """The mode of the limiter: off, count the packets over the limit, or drop them."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


@frozen
class Limit:
    """The limiter: packets a second, and the additional burst, of one source that is not a friend."""

    mode: LimitMode = LimitMode.OFF
    rate: int = 50
    burst: int = 200


@frozen
class Ports:
    """Ports of this host, in order; ``tcp`` includes those of TLS, WS, WSS and the manager interface."""

    udp: tuple[int, ...] = (4569, 5060)
    tcp: tuple[int, ...] = (5038, 5060, 5061, 8089)


@frozen
class FirewallPlan:
    """The configuration of the rules.

    ``maxelem`` is the size of each set when it is made. ``log_group`` is the NFLOG group for outgoing SIP
    answers: 401, 403 and 407 by UDP, TCP and WebSocket, and 404 by UDP. None means no such rules.
    ``sip_ports`` are the ports of the limiter and of bans of the scopes ``SIP``, ``SIP_UDP`` and ``SIP_TCP``.
    With ``every_port`` false they are the ports of a full ban too. TCP answers from these ports are copied.
    ``interfaces`` are those on which packets are dropped; an empty tuple means all. ``log``: whether the
    kernel logs dropped packets with the prefix ``ringfence: ``, a few lines a second.
    """

    maxelem: int = 262_144
    log_group: int | None = None
    every_port: bool = True
    sip_ports: Ports = Ports()
    interfaces: tuple[str, ...] = ()
    action: BanAction = BanAction.DROP
    log: bool = False
    limit: Limit = Limit()

    def changed_keys(self, other: "FirewallPlan") -> list[str]:
        """Return the configuration keys whose values differ from those in ``other``."""
        keys = {
            "maxelem": "max_bans",
            "log_group": "wire",
            "every_port": "scope",
            "limit": "limiter",
        }
        return [
            keys.get(field.name, field.name)
            for field in fields(FirewallPlan)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


class NetworkList(enum.StrEnum):
    """A list of networks that the kernel holds beside the bans.

    Networks on ``ALLOW`` are never dropped by any rule of ringfence. Networks on ``DENY`` are always dropped.
    The limiter ignores ``FRIENDS`` and ``ALLOW``. Some bans do not apply to ``FRIENDS``
    (:func:`exempts_friends`).
    """

    ALLOW = "allow"
    DENY = "deny"
    FRIENDS = "friends"


def exempts_friends(network: Network) -> bool:
    """Whether a ban of ``network`` does not apply to the friends in it, in any scope.

    An IPv6 sender has a whole /64, so the /64 is counted and banned. A phone may share that /64 with an
    attacker. Therefore a ban of a /64, or of a part of it, drops no packet from or to an address on
    ``FRIENDS``. A ban of exactly that address does, and so do a ban of a wider network and every ban of an
    IPv4 network.
    """
    return network.version == 6 and IPV6_SENDER <= network.prefixlen < network.max_prefixlen  # noqa: PLR2004 - IPv6


@frozen
class Add:
    """Ban ``network`` for ``timeout`` seconds from now, whether or not it is banned already."""

    network: Network
    timeout: float
    scope: Scope = Scope.FULL


@frozen
class Remove:
    """Unban ``network``, whether or not it is banned. A ban of it with another scope stays."""

    network: Network
    scope: Scope = Scope.FULL


Change = Add | Remove


@event_values.frozen
class Outcome:
    """The result of one change.

    ``error`` is None exactly if the kernel acknowledged the change. ``timeout`` is the timeout that an Add
    received, in seconds. It is less than requested if the backend has a lower maximum; the caller then renews
    the ban in time.
    """

    change: Change
    timeout: float = 0.0
    error: FirewallError | None = None


UNKNOWN_OUTCOME = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("no result is known"))
"""The outcome of a change before a backend has set it."""


@event_values.frozen
class Element:
    """One ban in the kernel: the remaining time in seconds, and the packets and bytes that it dropped.

    ``timeout`` is ``inf`` for an element without a timeout, which only another program can have added.
    """

    network: Network
    timeout: float
    packets: int
    bytes: int
    scope: Scope = Scope.FULL


@frozen
class Opened:
    """The result of ``open``: for each IP version (4, 6) None if it is guarded, else the reason why not.

    ``wire`` is None if every guarded version has the log rules, and if none are configured; else it is the
    reason why they are missing. ``limiter`` is the same for the limiter. The bans are in force in either
    case. ``repaired``: whether sets or rules of ringfence were missing or different.
    """

    families: Mapping[int, str | None]
    adopted: int = 0
    wire: str | None = None
    limiter: str | None = None
    repaired: bool = False


@frozen
class Health:
    """The result of a quick check of the rules and sets.

    ``damage`` names what another program changed in our sets or rules; None means nothing. ``open`` repairs
    it. ``elements`` is the number of bans in the kernel, None if it cannot be read quickly. ``changed`` is
    whether another program changed, or may have changed, our sets or rules since the last check. Changes to
    other sets and rules do not count.
    """

    damage: str | None = None
    elements: int | None = None
    changed: bool = False


@frozen
class RuleCounter:
    """The packets and bytes of one kind of rule.

    ``name`` is for people, such as ``from banned addresses``.
    """

    name: str
    packets: int
    bytes: int


@frozen
class Counters:
    """The counters of the rules since they were installed, and the sizes of the sets.

    ``sets`` maps the name of a set to its number of elements (None if it cannot be read quickly).
    ``limiter_drops`` counts the packets over the limit, dropped or only observed. ``limiter_full`` counts the
    packets from sources for which the limiter had no room.
    """

    rules: tuple[RuleCounter, ...] = ()
    sets: Mapping[str, int | None] = {}
    limiter_drops: int = 0
    limiter_full: int = 0


@frozen
class Flooder:
    """A source over the limit, and the packets over it so far, by TCP or by UDP.

    A source is an address, or for IPv6 by UDP a /64. Over UDP the limit of IPv6 holds for the /64. TCP is
    counted by address, because a connection belongs to one address.
    """

    network: Network
    packets: int
    tcp: bool = False


@frozen
class Requirement:
    """One thing that a backend needs. ``problem`` is why it is missing, with the fix, or None.

    ``optional``: ``open`` works without it, and reports that it is missing.
    """

    name: str
    problem: str | None = None
    note: str = ""
    optional: bool = False


def not_open_error() -> FirewallError:
    """Return the error of a call that needs ``open``."""
    return FirewallError("the firewall is not open: no ban is possible")


def whole_seconds(timeout: float) -> int:
    """Return a timeout that every backend accepts: rounded up, from MIN_TIMEOUT to MAX_TIMEOUT."""
    if not timeout > MIN_TIMEOUT:
        return MIN_TIMEOUT
    return MAX_TIMEOUT if timeout >= MAX_TIMEOUT else math.ceil(timeout)


class Backend(Protocol):
    """A firewall. Each method states whether it may be repeated.

    ``enforces`` is whether packets are really dropped; if not, there is nothing to verify. ``plan`` may be
    replaced at any time. The next ``open`` puts it in place.
    """

    name: str
    enforces: bool
    plan: FirewallPlan

    def requirements(self) -> Sequence[Requirement]:
        """Return what ``open`` needs, and what of it is missing. Changes nothing."""

    def open(self) -> Opened:
        """Put sets and rules in place. Existing sets are adopted with all their elements.

        Idempotent: a second call repairs missing sets and rules. It replaces an old plan by a new one in one
        transaction, and loses no element. Raises FirewallUnsupportedError or FirewallPermissionError, before
        anything is changed, if the host or the process lacks a requirement. A host without one of the two IP
        versions is a state (``Opened.families``), not an error. A host with neither is unsupported.
        """

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change of ``batch``, in order, and return the kernel's result for each.

        Idempotent. Needs ``open``. A failed change does not affect the others. Never raises for a change.
        Raises FirewallError only if there are no results at all (the socket is gone).
        """

    def observe(self, addresses: Iterable[Address]) -> None:
        """Copy the SIP requests of ``addresses`` by UDP for the next ``OBSERVE_SECONDS``.

        They go to ``FirewallPlan.log_group`` with the NFLOG prefix ``OBSERVE_PREFIX``, at most
        ``OBSERVE_RATE`` a second, unless a full ban or the limiter drops them. What a ban with the scope
        ``SIP_UDP`` drops is copied as well, within a limit of its own. Without a group nothing is copied.
        Needs ``open``; starts no process. May be repeated: the time of an address begins again.

        Observing is optional and never raises. If the set is full (``OBSERVE_MOST``), new addresses are left
        out. If the set is gone or the kernel does not answer, :meth:`health` and :meth:`apply` report it.
        """

    def replace_list_in_steps(
        self, which: NetworkList, networks: Iterable[Network]
    ) -> Generator[None, None, None]:
        """Replace the contents of the list ``which`` with ``networks``, in steps of some ten milliseconds.

        An address that is on the list before and after is found at every moment. An address that is on it
        neither before nor after is never found. Idempotent. Needs ``open``. Networks may overlap. The
        elements have no timeout. Raises FirewallError. After an error, and if the caller abandons the
        replacement, the list holds an unknown part of the old and the new networks, but the first sentence
        still holds. All steps for 100 000 networks take a second.

        The first step sorts and compares. It does not access the kernel, and may run in another thread. Other
        methods may be called between two steps, except another replacement of the same list.
        """

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:
        """Yield every ban in the kernel, in no particular order. Changes nothing.

        The kernel may omit some bans while others change its sets. ``known`` names bans that should be found,
        None if the caller knows no bans. The backend reads ``known`` after the list, in the same thread, and
        looks up each ban of it that the list lacks. Raises FirewallIncompleteError after the last ban if
        others may be missing.

        Works without ``open``. May be called, and iterated, in a thread of its own while other methods run.
        Of the other methods only ``counters`` may run in a thread. 100 000 bans take half a second.

        Yields nothing if no set of ringfence exists.
        """

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``; starts no process.

        Finds ``network`` itself, not a network that covers it. Takes some 10 µs with nftables. ipset cannot
        look up a single element; there it takes 50 ms for 100 000 bans if the ban exists.
        """

    def health(self) -> Health:
        """Check quickly whether all sets and rules of ringfence are in place.

        Needs ``open``; changes nothing.

        Takes one or two milliseconds for any number of bans, and starts no process. It is called every
        second.
        """

    def rules_differ(self) -> bool:
        """Whether rules that ``watch_fd`` does not watch may be damaged; then call ``health``.

        Needs ``open``; changes nothing. Takes about 0.1 ms, and starts no process. It is called five times a
        second.
        """

    def watch_fd(self) -> int | None:
        """Return a descriptor that becomes readable when another program changes rules; then call ``health``.

        None if the kernel does not report changes. The descriptor stays the same from ``open`` to ``close``.
        """

    def counters(self) -> Counters:
        """Return the counters of rules and sets. Needs ``open``; changes nothing.

        May be called in a thread of its own, as ``list`` may. With ipset it starts processes.
        """

    def flooders(self) -> Sequence[Flooder]:
        """Return the sources that were over the limit within the last seconds. Needs ``open``; no process."""

    def flush(self) -> None:
        """Remove every rule, chain and set of ringfence, and nothing else.

        Idempotent; works without ``open``.
        """

    def close(self) -> None:
        """Close the sockets. The kernel keeps all sets and rules. Idempotent."""
