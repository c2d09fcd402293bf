"""The contract between ringfence and a firewall: its verbs, and the values they speak in.

All verbs are synchronous: one netlink exchange takes some ten microseconds, less than handing it to
another thread, and an attacker sends a guess every 300 µs. Only ``open``, ``fill``, ``usage`` and ``flush``
may start a process (the platform's own tool), and all four are rare.

What comes back is what the kernel confirmed, element by element; nothing is assumed from silence.

The order in which a packet meets the rules: whom a list of the administrator's allows is never dropped; then
bans, then the list of those who are denied, then the limiter, then the log rule for the wire (a challenge
that was dropped proves nothing).
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from attrs import fields, frozen

from ringfence import quick
from ringfence.errors import FirewallError
from ringfence.model import Network, Scope

PROBE_PORT = 21_063
"""The port of UDP by which ``probe.py`` tries bans where a full ban covers the SIP ports only: such a ban
covers this one too, and nothing else listens there. "RG" as a number."""


class Verdict(enum.StrEnum):
    """What becomes of a packet from a banned address. Answers to it are dropped whatever this says."""

    DROP = "drop"
    PORT_UNREACHABLE = "port-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"
    TCP_RESET = "tcp-reset"  # for TCP; what is not TCP is dropped


class LimitMode(enum.StrEnum):
    """What the limiter does: nothing, count whom it would drop, or drop."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


@frozen
class Limit:
    """The limiter: packets a second, and how many more at once, of one source that is no friend."""

    mode: LimitMode = LimitMode.OFF
    rate: int = 50
    burst: int = 200


@frozen
class Ports:
    """Ports of this host, in order; ``tcp`` has those of TLS, WS, WSS and the manager interface too."""

    udp: tuple[int, ...] = (4569, 5060)
    tcp: tuple[int, ...] = (5038, 5060, 5061, 8089)


@frozen
class Plan:
    """What the rules are to be.

    ``maxelem`` is the size of each set when it is made, ``log_group`` the NFLOG group for outgoing SIP
    challenges (None: no such rule). ``sip_ports`` are what the limiter and a ban of scope ``SIP_UDP`` look
    at, and with ``every_port`` false a full ban too. ``interfaces`` are those on which anything is dropped;
    none means all. ``log``: whether the kernel logs what is dropped, with the prefix ``ringfence: ``, a few
    lines a second.
    """

    maxelem: int = 262_144
    log_group: int | None = None
    every_port: bool = True
    sip_ports: Ports = Ports()
    interfaces: tuple[str, ...] = ()
    verdict: Verdict = Verdict.DROP
    log: bool = False
    limit: Limit = Limit()

    def differing(self, other: "Plan") -> list[str]:
        """Name what is not as in ``other``, in the words of the configuration."""
        words = {
            "maxelem": "max_bans",
            "log_group": "wire",
            "every_port": "scope",
            "verdict": "action",
            "limit": "limiter",
        }
        return [
            words.get(field.name, field.name)
            for field in fields(Plan)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


class Roll(enum.StrEnum):
    """A list of networks that the kernel holds beside the bans.

    ``ALLOW`` is never dropped, whatever else says so; ``DENY`` is always dropped; ``FRIENDS`` is passed over
    by the limiter, as ``ALLOW`` is.
    """

    ALLOW = "allow"
    DENY = "deny"
    FRIENDS = "friends"


@frozen
class Add:
    """Keep ``network`` out for ``timeout`` seconds from now, whether or not it is in already."""

    network: Network
    timeout: float
    scope: Scope = Scope.FULL


@frozen
class Remove:
    """Let ``network`` in again, whether or not it was out. A ban of it with another scope stays."""

    network: Network
    scope: Scope = Scope.FULL


Change = Add | Remove


@quick.frozen
class Outcome:
    """What became of one change.

    ``error`` is None exactly when the kernel acknowledged it. ``timeout`` is what an Add was really given,
    in seconds: less than asked where the backend's own cap is lower (the caller renews in time).
    """

    change: Change
    timeout: float = 0.0
    error: FirewallError | None = None


@quick.frozen
class Element:
    """One ban as the kernel has it: time left in seconds, and what was dropped because of it.

    ``timeout`` is ``inf`` for an element without an end, which only somebody else can have put in.
    """

    network: Network
    timeout: float
    packets: int
    bytes: int
    scope: Scope = Scope.FULL


@frozen
class Opened:
    """What ``open`` found: per IP version (4, 6) None where it is guarded, else why it cannot be.

    ``wire`` is None where the log rule stands for every guarded version, and where it was not asked for; else
    why it does not stand. ``limiter`` says the same of the limiter. The bans stand either way. ``healed``:
    whether anything of ours was missing or different.
    """

    families: Mapping[int, str | None]
    adopted: int = 0
    wire: str | None = None
    limiter: str | None = None
    healed: bool = False


@frozen
class Pulse:
    """What a quick look says of the rules and sets.

    ``trouble`` names what somebody else has changed of ours, None where nothing: ``open`` heals it.
    ``elements`` is how many bans the kernel has, None where that is not known quickly. ``changed`` is whether
    somebody else has changed anything since the last look, ours or not.
    """

    trouble: str | None = None
    elements: int | None = None
    changed: bool = False


@frozen
class RuleUse:
    """What one kind of rule has met: ``name`` is for people, such as ``from banned addresses``."""

    name: str
    packets: int
    bytes: int


@frozen
class Usage:
    """What the rules have met since they were put in place, and how full the sets are.

    ``sets`` maps a set's name to its elements (None where that is not known quickly). ``limiter_drops``
    counts the packets over the limit, dropped or only observed. ``limiter_full`` is how many packets came
    from sources for which the limiter had no room.
    """

    rules: tuple[RuleUse, ...] = ()
    sets: Mapping[str, int | None] = {}
    limiter_drops: int = 0
    limiter_full: int = 0


@frozen
class Flooder:
    """A source over the limit: an IPv4 address or an IPv6 /64, and its packets over it so far."""

    network: Network
    packets: int


@frozen
class Part:
    """One thing that a backend needs: what it is, and what it lacks with the mend, or None.

    ``spared``: ``open`` goes without it, and says so.
    """

    what: str
    lack: str | None = None
    note: str = ""
    spared: bool = False


class Backend(Protocol):
    """A firewall. Each verb says whether it may be repeated.

    ``enforces`` is whether packets are really dropped; without it there is nothing to verify. ``plan`` may be
    replaced at any time; the next ``open`` puts it in place.
    """

    name: str
    enforces: bool
    plan: Plan

    def look(self) -> Sequence[Part]:
        """Say what stands in the way of ``open``, part by part. No verb: it changes nothing."""

    def open(self) -> Opened:
        """Put sets and rules in place, adopting sets that are there already with all they hold.

        Idempotent: a second call heals what is missing, puts a new plan in place of the old one in one
        transaction, and loses no element. Before it changes anything it
        raises FirewallUnsupportedError or FirewallPermissionError for what this host or process lacks.
        A host without one of the two IP versions is a state (``Opened.families``), not an error; a host
        with neither is unsupported.
        """

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change of ``batch``, in order, and say of each what the kernel said.

        Idempotent. Needs ``open``. One bad change takes no other with it. Never raises for a change; raises
        FirewallError only where nothing at all can be said (the socket is gone).
        """

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Have exactly ``networks`` on ``roll``, in one step: at no moment is it empty meanwhile.

        Idempotent. Needs ``open``. Networks may overlap. The elements have no end. Raises FirewallError, and
        then the roll is as it was. Takes up to a second for 100 000; other verbs wait.
        """

    def list(self) -> Iterator[Element]:
        """Read every ban from the kernel, in no order, one after the other. Changes nothing.

        Works without ``open``. May be called, and iterated, in a thread of its own while the others go on, as
        ``usage`` may and no other: 100 000 bans take half a second to read.

        Empty where no set of ours exists.
        """

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Read one ban from the kernel; None where it has none. Needs ``open``; no process.

        For ``network`` itself, not for one that covers it. Takes some 10 µs by nftables; by ipset, which
        tells of no single element, it takes 50 ms for 100 000 where there is one.
        """

    def pulse(self) -> Pulse:
        """Look quickly whether all of ours is still in place. Needs ``open``; changes nothing.

        Takes about a millisecond whatever the number of bans, and starts no process: called every second.
        """

    def watch_fd(self) -> int | None:
        """Give what becomes readable when somebody changes rules, for an event loop; then ``pulse``.

        None where the kernel tells of no changes. The same from ``open`` to ``close``.
        """

    def usage(self) -> Usage:
        """Say what rules and sets have met so far. Needs ``open``; changes nothing.

        May be called in a thread of its own, as ``list`` may: by ipset it starts processes.
        """

    def flooding(self) -> Sequence[Flooder]:
        """Give the sources that were over the limit within the last seconds. Needs ``open``; no process."""

    def flush(self) -> None:
        """Remove every rule, chain and set of ours, and nothing else. Idempotent; works without ``open``."""

    def close(self) -> None:
        """Give back sockets. What is in the kernel stays. Idempotent."""
