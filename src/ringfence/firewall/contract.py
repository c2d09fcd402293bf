"""The interface between ringfence and a firewall: the methods of a backend and their values.

All methods are synchronous. One exchange with the kernel takes some ten microseconds, and passing it to
another thread would take longer. That matters because a fast attacker sends a guess every 300 µs. Only
``requirements``, ``open``, ``replace_list_in_steps``, ``counters`` and ``flush`` may start a process, such as
``nft``. They are called rarely.

A result contains what the kernel confirmed for each element. Without the kernel's answer a change has failed.

The *wire* is one of ringfence's sources: the kernel copies outgoing SIP challenges (401, 407) and some other
packets to it (NFLOG). Of a *stranger* (neither a friend nor allowed) it copies the whole conversation by UDP:
its requests to the SIP ports, and all answers to them. So a guess is seen, and not deduced from its answer.
An *observed* friend is copied like a stranger, because Asterisk refuses it again and again.

*Friends* are the known phones and trunks of this PBX. The *scope* of a ban is the traffic that it drops: all
(a full ban), or that of the SIP ports, by any transport or only by UDP or TCP (``values.ban.Scope``).

``stages.py`` has the rules in their order.
"""

import enum
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Protocol, TypeVar

from attrs import Factory, evolve, field, fields, frozen
from attrs.validators import and_, ge, le

from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.limits import Addition, Filter, LimitMode, Table, Until
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.ports import Ports
from ringfence.values import fast
from ringfence.values.ban import Scope
from ringfence.values.network import Address, Network

AdditionT = TypeVar("AdditionT", bound=Addition)

PROBE_PORT = 21_063
"""The UDP port on which ``probe.py`` tests bans if ``FirewallPlan.every_port`` is false.

A full ban then covers the SIP ports and, for the test, this port. In ASCII its two bytes are "RG".
"""
PROBE_NETWORKS = {4: "127.82.70.0/24", 6: "2001:db8:5246::/112"}
"""The networks in which ``probe.py`` bans an address as a test, by IP version.

No rule counter counts their packets: an administrator who sees a number there has a banned sender.
"""

REQUEST_RATE = 20_000
"""The maximum number of requests that are copied in a second, for all strangers together.

After a pause, the same number may be copied at once.
"""
SENDER_RATE = 5_000
"""The maximum number of requests copied in a second of one source, an IPv4 address or IPv6 /64.

So a flood leaves room for the requests of others.
"""
DROPPED_RATE = 1_000
"""The maximum number of requests that are copied in a second although a narrow ban drops them.

The last request of a sender before its ban may prove its address. A flood that is banned must not take the
room of the strangers that are not.
"""
REQUEST_PREFIX = "request"
"""The text that marks a copied request in the NFLOG group; copied answers have none."""

DROPPED_PREFIX = "dropped"
"""The text that marks a copied request that a ban of SIP drops, so that Asterisk never gets it."""

SERVED = tuple(
    b"SIP/2.0 %s\r\nVia:" % status
    for status in (b"100 Trying", b"180 Ringing", b"183 Session Progress", b"200 OK")
)
"""The beginnings of Asterisk's answers to a call that it serves.

A sender may choose where a segment begins, and may write a status line into a header, which Asterisk repeats.
But it cannot write a line end, and no header that Asterisk repeats stands before a Via, except for another
Via.
"""
REFUSALS = (b"SIP/2.0 401", b"SIP/2.0 403", b"SIP/2.0 407")
"""The beginnings of SIP answers that refuse a request."""
COPIED = (*REFUSALS, b"SIP/2.0 404")
"""The beginnings of SIP answers that the kernel copies to ringfence. A 404: an unknown extension."""

SENDER_SECONDS = 2
"""Seconds for which the limit of copied requests remembers an address."""
MOST_LISTED = 4_096
"""The maximum number of sources over a limit that a table of the kernel lists.

The event loop reads it every second: 4 096 elements take some 30 ms of CPU, 16 384 took 150 ms. A source
without room in the table is still limited. It is reported as soon as the table has room for it.
"""

FROM_BANNED = "from banned addresses"
TO_BANNED = "to banned addresses"
FROM_DENIED = "from denied networks"
TO_DENIED = "to denied networks"
FRAGMENTS = "fragments of strangers"
"""The name of a counted kind of dropped packets (``RuleCounter.name``), like the four names above.

The rules stand where a packet may still be in fragments (raw, priority -300). Only its first fragment has the
ports. So the rules, and the copies to the wire, would see a part of a request: a sender could put its
credentials into the second fragment. The kernel reassembles packets before that (nf_defrag, priority -400) if
a rule of the network namespace needs it. Both backends have such a rule, in a chain that no packet reaches:
the kernel then reassembles, and tracks no connections, so a packet of voice pays nothing for it. If the
kernel cannot, the first fragments of strangers are dropped; without them Asterisk gets no packet. Friends and
allowed networks may send large requests in any case.
"""


MAX_TIMEOUT = 2_147_483
"""The longest timeout of a ban in seconds: ipset shortens any other to (UINT_MAX >> 1) milliseconds."""

EVERY_ADDRESS = FirewallError("a /0 is every address: the kernel bans none")
"""The error for a ban of a /0. No backend carries out such a ban."""
SET_FULL = "is full; fix: raise max_bans in [firewall], then ringfence reload, ringfence off, ringfence on"
"""The end of the error message for a full set; the message begins with the name of the set."""


class BanAction(enum.StrEnum):
    """The treatment of packets from a banned address. Packets to a banned address are always dropped."""

    DROP = "drop"
    PORT_UNREACHABLE = "port-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"
    TCP_RESET = "tcp-reset"  # for TCP; other packets are dropped


class Fragments(enum.StrEnum):
    """What happens to fragments of strangers' packets to the SIP ports: reassembled, dropped, or passed."""

    REASSEMBLED = "reassembled"
    DROPPED = "dropped"
    PASSED = "passed"  # the kernel lacks what the rules need: only the first fragment is read


@frozen
class FirewallPlan:
    """The configuration of the rules.

    ``maxelem``: how many bans a new set has room for. A set of ipset may take a few more, because the kernel
    uses the slots of removed bans even if the set is full. ``log_group``: the NFLOG group to which the kernel
    copies the requests of strangers, and outgoing SIP answers; None: it copies none. Over UDP it copies 401,
    403, 404 and 407 from any port, and to strangers every answer from ``sip_ports``. Over TCP it copies every
    segment from ``sip_ports`` to strangers. Segments to friends and allowed networks, and over the loopback
    interface, it copies if they begin with 401, 403 or 407, bare or in a WebSocket frame.

    ``every_port``: a full ban covers all ports, otherwise only ``sip_ports``. Bans of the scopes ``SIP``,
    ``SIP_UDP`` and ``SIP_TCP`` always cover ``sip_ports`` only. ``interfaces``: the network interfaces on
    which packets are dropped; an empty tuple means all. ``log``: the kernel logs a few dropped packets a
    second, with the prefix ``ringfence: ``.

    ``sender_rate`` is the maximum number of requests that are copied of one source in a second; 0: there is
    only the limit of all sources together.

    ``containers`` are the addresses of Asterisks in containers. Of the packets that this host forwards, only
    those that one of them sends count as Asterisk's: others may be a carrier's, or of another PBX, whose
    phones ringfence does not know.

    ``wss``: the ports of WebSocket over TLS at which strangers read no web pages.

    ``added``: what features add to the rules (``limits.Addition``).

    ``dropped``: the lists whose networks are dropped. ``new_only``: for ``by_machine`` ones, only packets
    to this host are dropped that begin something new (``ct state new`` or untracked). Answers to this host,
    and flows that exist already, pass: a block list must not cut a call. The kernel then tracks connections;
    otherwise ringfence does not make it do so. If the kernel cannot, the plan counts as one without
    ``new_only``.
    """

    maxelem: int = 262_144
    log_group: int | None = None
    every_port: bool = True
    sip_ports: Ports = Factory(Ports)
    interfaces: tuple[str, ...] = ()
    action: BanAction = BanAction.DROP
    log: bool = False
    sender_rate: int = SENDER_RATE
    containers: frozenset[Address] = frozenset()
    wss: tuple[int, ...] = ()
    added: tuple[Addition, ...] = ()
    new_only: bool = False
    dropped: tuple[NetworkList, ...] = (network_lists.DENY, network_lists.EXTERNAL)

    @property
    def covered(self) -> Mapping[Scope, Ports | None]:
        """The ports that a ban of each scope covers; None: all."""
        ports = self.sip_ports
        full = None if self.every_port else Ports(tuple(sorted({*ports.udp, PROBE_PORT})), ports.tcp)
        narrow = {Scope.SIP_UDP: Ports(ports.udp, ()), Scope.SIP_TCP: Ports((), ports.tcp)}
        return {Scope.FULL: full, Scope.SIP: ports, **narrow}

    @property
    def dropped_lists(self) -> Mapping[NetworkList, Scope]:
        """The lists whose networks are dropped, each with the traffic that it drops."""
        return {one: one.drops for one in self.dropped if one.drops is not None}

    @property
    def limits_copies(self) -> bool:
        """Whether the copied requests of each source have a limit of their own (``sender_rate``)."""
        return self.log_group is not None and self.sender_rate > 0

    @property
    def limits(self) -> bool:
        """Whether the plan limits each source or receiver: all these limits need the same kernel support."""
        added = {one.mode for one in self.added if isinstance(one, Filter) and one.optional}
        return self.limits_copies or bool(added - {LimitMode.OFF})

    @property
    def limits_answers(self) -> bool:
        """Whether the plan limits how many guesses of a stranger Asterisk can answer, by every transport."""
        modes = {one.mode for one in self.added if isinstance(one, Filter) and one.limits_answers}
        return modes == {LimitMode.ENFORCE}

    @property
    def modes(self) -> Mapping[str, LimitMode]:
        """The modes of the filters, by name."""
        return {one.name: one.mode for one in self.added if isinstance(one, Filter)}

    def mode(self, name: str) -> LimitMode:
        """Return the mode (off, count or drop) of the filter ``name``; off if the plan lacks it."""
        return self.modes.get(name, LimitMode.OFF)

    def find(self, kind: type[AdditionT]) -> AdditionT | None:
        """Return what a feature added to the plan, by its class ``kind``; None if nothing of this class."""
        return next((one for one in self.added if isinstance(one, kind)), None)

    def adding(self, *added: Addition) -> "FirewallPlan":
        """Return the plan with ``added``: each replaces an addition of the same name, or comes last."""
        new = {one.name: one for one in added}
        present = [new.pop(one.name, one) for one in self.added]
        return evolve(self, added=(*present, *new.values()))

    @property
    def copies(self) -> bool:
        """Whether any rule of the plan copies packets to an NFLOG group."""
        return self.log_group is not None or any(one.copies for one in self.added)

    def without_copies(self) -> "FirewallPlan":
        """Return the plan without the rules that copy packets, for a kernel that refuses them."""
        return evolve(self, log_group=None, added=tuple(one for one in self.added if not one.copies))

    def without_limits(self) -> "FirewallPlan":
        """Return the plan without the limits of each source and receiver."""
        added = tuple(one for one in self.added if not (isinstance(one, Filter) and one.optional))
        return evolve(self, added=added, sender_rate=0)

    def observing(self, until: Until) -> "FirewallPlan":
        """Return the plan for the time before ``until``: filters that wait for it only count packets."""
        added = tuple(one.observing(until) if isinstance(one, Filter) else one for one in self.added)
        return evolve(self, added=added)

    def changed_keys(self, other: "FirewallPlan") -> list[str]:
        """Return the names of the configuration keys and additions that differ from those in ``other``."""
        keys = {
            "maxelem": "max_bans",
            "log_group": "wire",
            "every_port": "scope",
        }
        changed = (
            keys.get(field.name, field.name)
            for field in fields(FirewallPlan)
            if field.name != "added" and getattr(self, field.name) != getattr(other, field.name)
        )
        return [*changed, *(one.name for one in self.added if one not in other.added)]


ListSteps = Generator[Callable[[], None] | None, None, None]
"""The steps of replacing a list: each does some work, and yields None, or a call that the caller makes."""


@frozen
class Add:
    """A change: ban ``network`` for ``timeout`` seconds from now, also if it has a ban of this scope.

    The timeout is at least 1, because with 0 the kernel would keep the ban for ever, and at most MAX_TIMEOUT.
    """

    network: Network
    timeout: int = field(validator=and_(ge(1), le(MAX_TIMEOUT)))
    scope: Scope = Scope.FULL


@frozen
class Remove:
    """A change: unban ``network``, if it is banned. A ban of it with another scope stays."""

    network: Network
    scope: Scope = Scope.FULL


Change = Add | Remove


@fast.frozen
class Outcome:
    """The result of one Add or Remove.

    ``error`` is None exactly if the kernel acknowledged the change. ``timeout`` is the timeout in seconds
    with which the backend added the ban; 0 if it added none.
    """

    change: Change
    timeout: float = 0.0
    error: FirewallError | None = None


UNKNOWN_OUTCOME = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("no result is known"))
"""A placeholder in a backend's list of outcomes, until the backend knows the outcome of the change."""


@fast.frozen
class Element:
    """One ban in the kernel, with the packets and bytes that it dropped.

    ``timeout`` is the remaining time in seconds. It is ``inf`` for an element without a timeout, which only
    another program can have added.
    """

    network: Network
    timeout: float
    packets: int
    bytes: int
    scope: Scope = Scope.FULL


@frozen
class Opened:
    """The result of ``open``.

    ``families`` maps each IP version (4 and 6) to None if it is guarded (its bans work), else to the reason
    why not. ``adopted`` is the number of bans that were found in the kernel. ``wire``: why the log rules
    (they copy SIP answers to the wire) are missing for a guarded version; None if they are not missing, or
    not configured. ``limits``: the same for what is optional (``limits.Filter``). Bans work without these.
    ``repaired``: another program had removed or changed sets or rules of ringfence.
    """

    families: Mapping[int, str | None]
    adopted: int = 0
    wire: str | None = None
    limits: str | None = None
    repaired: bool = False


@frozen
class Health:
    """The result of :meth:`Backend.health`.

    ``damage`` is a text about what another program changed in our sets or rules; None if nothing was changed.
    ``open`` repairs it. ``elements`` is the number of bans in the kernel; None if it cannot be read quickly.
    ``changed``: another program changed, or may have changed, our sets or rules since the last check. Changes
    to other sets and rules do not count.
    """

    damage: str | None = None
    elements: int | None = None
    changed: bool = False


@frozen
class RuleCounter:
    """How many packets and bytes the rules of one kind have dropped.

    ``name`` describes the packets for people, such as ``from banned addresses``.
    """

    name: str
    packets: int
    bytes: int


@frozen
class Counters:
    """The counters of the rules since they were installed, and the sizes of the sets.

    ``sets`` maps the name of a set, or of several sets counted together, to the number of elements; None if
    it is unknown. ``counted`` is the number of packets that a filter counted, by the name of its counter.
    """

    rules: tuple[RuleCounter, ...] = ()
    sets: Mapping[str, int | None] = {}
    counted: Mapping[str, int] = {}

    def of(self, counter: str) -> int:
        """Return the number of packets that a filter counted by the counter with this name, 0 without it."""
        return self.counted.get(counter, 0)

    def has_grown(self, counter: str, before: "Counters | None") -> bool:
        """Whether a filter has counted more packets than in ``before``, the reading before this one.

        False without such a reading: the rules outlast the daemon, so its first one has older packets too.
        """
        return before is not None and self.of(counter) > before.of(counter)


@frozen
class Remembered:
    """A sender in a table of the firewall (``limits.Table``), and how many packets it sent.

    ``network`` is an address, or a /64 of IPv6. ``packets`` are those since it came into the table.
    """

    network: Network
    packets: int


@frozen
class Requirement:
    """One thing that a backend needs.

    ``problem`` is why it is missing, with the fix; None if it is not missing. ``note`` is a remark for
    people. ``optional``: if it is missing, ``open`` succeeds, and its result names the missing feature.
    """

    name: str
    problem: str | None = None
    note: str = ""
    optional: bool = False


def fragments_requirement(found: Fragments, fix: str, suffix: str = "") -> Requirement:
    """Return the requirement that the kernel reassembles packets before our rules.

    ``found`` is what happens to fragments on this host, and ``fix`` what helps. ``suffix`` ends the name of
    the requirement.
    """
    name = f"fragments of packets to the SIP ports{suffix}"
    if found is Fragments.REASSEMBLED:
        note = f"{found}: large requests are read whole"
        return Requirement(name, note=note, optional=True)
    effect = (
        "those of strangers are dropped: their requests must fit into a packet"
        if found is Fragments.DROPPED
        else "only the first one is read, so an attempt in another one may go uncounted"
    )
    return Requirement(
        name, f"{found}: this kernel does not reassemble them first, and {effect}; {fix}", optional=True
    )


def not_open_error() -> FirewallError:
    """Return the error for calling a backend's method before ``open``."""
    return FirewallError("the firewall is not open: no ban is possible")


class Backend(Protocol):
    """A firewall. *Idempotent* means that a method may be called again with the same effect.

    ``enforces``: packets are really dropped; if not, ``probe.py`` has nothing to verify. ``plan`` is the
    configuration of the rules. The caller may assign another plan at any time; the next ``open`` installs it.
    """

    name: str
    enforces: bool
    plan: FirewallPlan

    def requirements(self) -> Sequence[Requirement]:
        """Return everything that ``open`` needs, each with its problem if it is missing. Changes nothing."""

    def is_present(self) -> bool:
        """Whether the kernel has any set or rule of this backend. Needs no ``open``; starts no process.

        Raise FirewallError if the kernel does not support the backend, or if its answer is an error.
        """
        ...

    def listing(self, version: int) -> str:
        """Return the shell command by which an administrator lists the rules of an IP version."""
        ...

    def open(self) -> Opened:
        """Make the sets and rules of ``plan`` that are missing. Existing sets keep all their elements.

        Idempotent: a later call repairs missing and changed sets and rules. If ``plan`` has changed, it
        replaces the rules; all bans stay in force meanwhile. Raises FirewallUnsupportedError or
        FirewallPermissionError, before it changes anything, if the host or the process lacks a requirement.
        If the host has only one of the two IP versions, ``Opened.families`` has the reason for the other;
        that is no error. A host with neither is unsupported.
        """

    def attach(self) -> None:
        """Use the sets and rules that the kernel has, for a command that runs without a daemon.

        Changes nothing. Of the methods that need ``open``, only ``apply`` may follow. It leaves all rules as
        they are, and may add some for the first ban of a prefix length. Raises FirewallError.
        """

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change of ``batch``, in order, and return the kernel's result for each.

        Idempotent. Needs ``open`` or ``attach``. A failed change does not affect the others: its outcome has
        the error. Raises FirewallError only if there are no results at all, for example without ``open``.
        """

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Replace the contents of the list ``which`` with ``networks``, in steps of some ten milliseconds.

        An address that is on both the old and the new list never leaves the list in between. An address that
        is on neither never appears on it. Networks may overlap. The elements have no timeout. All steps for
        100 000 networks take a second together. Idempotent. Needs ``open``.

        Raises FirewallError. After an error, or if the caller stops before the last step, the kernel's list
        may be a mixture of the old and the new one.

        The first step sorts and compares. It does not access the kernel, and may run in another thread. A
        step may yield a call, which the caller makes before the next step, perhaps in another thread. Other
        methods may be called between two steps and during such a call, except another replacement of the same
        list. If the caller stops during such a call, ``close`` waits until the call ends.
        """

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:
        """Yield every ban in the kernel, in no particular order. Changes nothing.

        If the sets change during the call, the kernel's list may lack some bans. ``known`` helps to find
        them. It yields bans that the caller expects in the kernel; None: the caller expects none. The backend
        may iterate over it at the end, in the same thread, and looks up each of its bans. So ``known`` can
        leave out the bans that the caller has received already. Raises FirewallIncompleteError after the last
        ban if others may be missing.

        Works without ``open``. Yields nothing if no set of ringfence exists. 100 000 bans take half a second.
        May be called, and iterated, in another thread while other methods run. Apart from this method,
        only ``covering``, ``counters``, the first step of ``replace_list_in_steps``, and the calls that its
        steps yield may run in another thread.
        """

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``; starts no process.

        Finds ``network`` itself, not a network that covers it. Takes some 10 µs with nftables. ipset cannot
        return a single element, so the whole set is listed if it contains the ban: 50 ms for 100 000 bans.
        """

    def covering(self, network: Network) -> Iterator[Element]:
        """Yield the bans of ``network`` and of all networks around it, in no particular order.

        Works without ``open``, and in another thread, as ``list``. Yields nothing if no set of ringfence
        exists. Changes nothing. Raises FirewallError if the kernel cannot be asked.

        Takes a millisecond or two with nftables, for any number of bans. ipset lists a set that has such a
        ban, as for ``find``.
        """

    def health(self) -> Health:
        """Check quickly whether all sets and rules of ringfence are in place.

        Needs ``open``; changes nothing, and starts no process. The daemon calls it every second. It takes one
        or two milliseconds for any number of bans with nftables; with ipset, one more for every 25 000 bans.
        """

    def rules_differ(self) -> bool:
        """Whether any of our rules may be damaged in a way that :meth:`watch_fd` does not report.

        If so, the caller calls ``health``. Needs ``open``; changes nothing, and starts no process. The daemon
        calls it five times a second if there is no such descriptor. It takes about 0.1 ms.
        """

    def watch_fd(self) -> int | None:
        """Return a descriptor that becomes readable when another program may have changed our sets or rules.

        Then the caller calls ``health``. None if the kernel does not report changes. The descriptor stays the
        same from ``open`` to ``close``.
        """

    def counters(self) -> Counters:
        """Return the counters of rules and sets. Needs ``open``; changes nothing.

        May be called in another thread while other methods run. With ipset it starts processes.
        """

    def remembered(self, table: Table) -> Sequence[Remembered]:
        """Return the senders in ``table``; none if no rule uses it. Needs ``open``; starts no process."""

    def flush(self) -> None:
        """Remove every rule, chain and set of ringfence, and nothing else.

        Idempotent; works without ``open``.
        """

    def close(self) -> None:
        """Close the sockets. The kernel keeps all sets and rules. Idempotent."""
