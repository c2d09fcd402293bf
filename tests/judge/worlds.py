"""Worlds: random senders around one PBX, played to a guard while the judge watches.

A world follows from its seed alone. A world in which an invariant does not hold is shrunk: actions are
left out as long as the same invariant still does not hold.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from tests.judge.asterisk import HERE, HERE_BY_IPV6, HERE_TOO, PBX, SECOND, Act, Report
from tests.judge.oracle import Judge, View, Violation, drops
from tests.judge.others import exchange

START = 1_700_006_400.0
"""The wall-clock time at which each world begins (seconds since the epoch)."""

SETTLES = 30.0
"""The time after which no report waits for another source any more (seconds)."""

TRUNK = "198.51.100.1"
PHONES = ("198.51.100.20", "198.51.100.21")
LAMPS = "198.51.100.30"
"""A phone that subscribes to lamps. chan_sip reports no login then, so the phone may stay a stranger."""
OFFICE = "198.51.100.40"
"""An address whose phones register at chan_sip."""
VICTIM = "198.51.100.77"
ATTACKERS = ("203.0.113.5", "203.0.113.6")
INSIDER = "198.51.100.50"
"""An attacker with one password."""
AMI_FIRST = -1
"""The order in which AMI reports first, then the wire, and last the log."""


class Guarding(Protocol):
    """A guard: the real one, or a wrong one that shows what the judge finds."""

    @property
    def now(self) -> float:
        """The time since the start (seconds)."""

    def connected(self, address: str, port: int, here: str) -> None:
        """Record a TCP connection to the address ``here`` of the PBX."""

    def copies(self, address: str) -> bool:
        """Whether the kernel copies the requests of an address, because it is a stranger."""

    def report(self, report: Report) -> None:
        """Read the bytes of one source."""

    def wait(self, until: float) -> None:
        """Advance the time (seconds since the start)."""

    def view(self, *, whole: bool) -> View:
        """Return what is seen from outside."""


@dataclass(frozen=True)
class Site:
    """Where the guard runs. ``container``: Asterisk is in a container.

    ``trunks`` are the addresses at which the PBX registers, and ``claims`` is the greatest number of claimed
    bans a minute. The guard keeps at most so many ``attempts`` and ``sessions``.
    """

    trunks: tuple[str, ...] = (TRUNK,)
    container: bool = False
    claims: int = 600
    attempts: int = 10_000
    sessions: int = 10_000


PLAIN = Site()
"""The site of nearly all worlds."""

Guards = Callable[[Site], AbstractContextManager[Guarding]]


@dataclass(frozen=True)
class Failure:
    """A world in which invariants do not hold, and the first of them."""

    acts: tuple[Act, ...]
    violations: tuple[Violation, ...]

    @property
    def invariant(self) -> str:
        """The letter of the first invariant that does not hold."""
        return self.violations[0].invariant

    def __str__(self) -> str:
        return "\n".join([*map(written, self.acts), *(f"=> {one}" for one in self.violations)])


def written(act: Act) -> str:
    """Return an action as Python, without the values that are defaults."""
    default = Act(act.kind, act.sender)
    names = [name for name in Act.__dataclass_fields__ if getattr(act, name) != getattr(default, name)]
    values = "".join(f", {name}={getattr(act, name)!r}" for name in names)
    return f"Act({act.kind!r}, {act.sender!r}{values}),"


def interleaved(sources: Sequence[Sequence[Report]], order: int) -> Iterator[Report]:
    """Yield the reports of all sources in the order that belongs to the number.

    0: AMI comes last. ``AMI_FIRST``: it comes first.
    """
    left = [list(reports) for reports in sources if reports]
    chosen = random.Random(order)  # noqa: S311 - a world, no secret
    while left:
        if order == AMI_FIRST:
            reports = left[0]
        elif order:
            reports = chosen.choice(left)
        else:
            reports = next((one for one in left if one[0].source != "ami"), left[0])
        yield reports.pop(0)
        left = [one for one in left if one]


def play(  # noqa: C901 - one loop over the actions
    acts: Sequence[Act], guards: Guards, site: Site = PLAIN
) -> Failure | None:
    """Play a world; return its first failure, or None."""
    judge = Judge(site.trunks, site.claims)
    late: list[tuple[float, Report]] = []
    with guards(site) as guard:

        def wait(until: float) -> None:
            for due in sorted(late, key=lambda one: one[0]):
                if due[0] <= until:
                    guard.wait(due[0])
                    guard.report(due[1])
                    late.remove(due)
            guard.wait(until)

        for number, act in enumerate(acts, 1):
            wait(guard.now + act.wait)
            one = exchange(act, START + guard.now, number)
            transport = "UDP" if act.transport == "UDP" else "TCP"
            if drops(guard.view(whole=False).kernel, one.source, transport):
                continue
            for request in one.truth():
                judge.sent(request)
            if act.transport != "UDP":
                guard.connected(one.source, one.port, act.here)
            *others, log = one.reports(copied=guard.copies(one.source))
            if act.late:
                late += [(guard.now + act.late, report) for report in log]
            for report in interleaved(others if act.late else [*others, log], act.order):
                guard.report(report)
            violations = judge.check(guard.view(whole=False), START + guard.now, quiet=False)
            if violations:
                return Failure(tuple(acts[:number]), tuple(violations))
        wait(guard.now + SETTLES)
        violations = judge.check(guard.view(whole=True), START + guard.now, quiet=True)
    return Failure(tuple(acts), tuple(violations)) if violations else None


def shrunk(failure: Failure, guards: Guards) -> Failure:
    """Leave out actions, many at first, while the same invariant does not hold."""
    size = max(1, len(failure.acts) // 2)
    while True:
        start = 0
        while start < len(failure.acts):
            smaller = play(failure.acts[:start] + failure.acts[start + size :], guards)
            if smaller is not None and smaller.invariant == failure.invariant:
                failure = smaller
            else:
                start += size
        if size == 1:
            return failure
        size //= 2


# -- senders. Each returns its actions; a world mixes those of several.

_Cast = Callable[[random.Random], list[Act]]


def _phone(chosen: random.Random) -> list[Act]:
    """Log in again and again, with a typing error of another account at times."""
    address = chosen.choice(PHONES)
    transport = chosen.choice(("UDP", "TCP"))
    acts = [Act("logs in", address, transport=transport) for _ in range(chosen.randint(2, 5))]
    if chosen.random() < 0.3:
        acts.append(Act("guesses", address, account="205", transport=transport))
    return acts


def _guesser(chosen: random.Random) -> list[Act]:
    address, transport = chosen.choice(ATTACKERS), chosen.choice(("UDP", "TCP"))
    accounts = chosen.choice((("204",), ("204", "205"), ("900", "901", "902"), ("204", "900")))
    number = chosen.randint(1, 9)
    return [
        Act("guesses", address, account=chosen.choice(accounts), transport=transport) for _ in range(number)
    ]


def _scanner(chosen: random.Random) -> list[Act]:
    address, transport = chosen.choice(ATTACKERS), chosen.choice(("UDP", "TCP"))
    number = chosen.randint(1, 6)
    return [Act("asks", address, account=str(900 + one), transport=transport) for one in range(number)]


def _hider(chosen: random.Random) -> list[Act]:
    kind = chosen.choice(("hides", "hides and blames", "hides by headers"))
    transport = chosen.choice(("UDP", "UDP", "TCP"))
    address, other = chosen.choice(ATTACKERS), chosen.choice((VICTIM, TRUNK, *PHONES))
    return [Act(kind, address, other, transport=transport) for _ in range(chosen.randint(1, 8))]


def _forger(chosen: random.Random) -> list[Act]:
    other, account = chosen.choice((VICTIM, TRUNK, *PHONES)), chosen.choice(("204", "900"))
    number = chosen.randint(1, 9)
    return [Act("forges a guess", ATTACKERS[0], other, account=account) for _ in range(number)]


def _elsewhere(chosen: random.Random) -> list[Act]:
    """Redirect the answers to another address, by a Via with ``maddr``."""
    kind = chosen.choice(("guesses elsewhere", "asks elsewhere"))
    address, other = chosen.choice(ATTACKERS), chosen.choice((VICTIM, TRUNK, *PHONES))
    return [Act(kind, address, other) for _ in range(chosen.randint(1, 8))]


def _lamps(chosen: random.Random) -> list[Act]:
    """Subscribe to lamps that chan_sip refuses, after the right password or a wrong one."""
    kind, address = chosen.choice((("lamp refused", LAMPS), ("lamp", ATTACKERS[1])))
    acts = [Act(kind, address) for _ in range(chosen.randint(1, 6))]
    return [*([Act("logs in", address)] if address == LAMPS and chosen.random() < 0.5 else []), *acts]


def _blind(chosen: random.Random) -> list[Act]:
    """Redirect the answers to the guesses, which may be hidden, to nowhere; at the end ask once more."""
    kind = chosen.choice(("guesses blind", "hides blind", "hides by headers blind"))
    address = chosen.choice(ATTACKERS)
    transport = chosen.choice(("UDP", "TCP"))
    acts = [Act(kind, address, transport=transport) for _ in range(chosen.randint(1, 8))]
    return [*acts, Act("asks", address, transport=transport)]


def _one_call(chosen: random.Random) -> list[Act]:
    """Make each guess under the same Call-ID."""
    address, transport = chosen.choice(ATTACKERS), chosen.choice(("UDP", "TCP"))
    return [Act("guesses in one call", address, transport=transport) for _ in range(chosen.randint(1, 9))]


def _office(chosen: random.Random) -> list[Act]:
    """Register at chan_sip, with a colleague's wrong password at times; or call what is not allowed."""
    if chosen.random() < 0.3:
        return [Act("call refused", LAMPS) for _ in range(chosen.randint(1, 6))]
    number = chosen.randint(0, 8)
    return [
        Act("registers", OFFICE),
        *(Act("guesses at chan_sip", OFFICE, account="205") for _ in range(number)),
    ]


def _elsewhere_at_home(chosen: random.Random) -> list[Act]:
    """Guess at chan_sip, at the second Asterisk or address, or behind a header of garbage."""
    address = chosen.choice(ATTACKERS)
    kind = chosen.choice(("guesses at chan_sip", "guesses behind garbage", "guesses", "hides by headers"))
    here = chosen.choice((HERE, HERE_TOO))
    asterisk = chosen.choice((PBX, SECOND))
    return [Act(kind, address, here=here, asterisk=asterisk) for _ in range(chosen.randint(1, 8))]


def _softphone(chosen: random.Random) -> list[Act]:
    """Log in by IPv6, then fail at new addresses of the /64; or guess from several /64s of a /48."""
    if chosen.random() < 0.5:
        new = f"2001:db8:1::{chosen.randint(0x100, 0x1FF):x}"
        kinds = chosen.choices(("guesses", "logs in"), (3, 1), k=chosen.randint(1, 8))
        return [
            Act(kind, one, here=HERE_BY_IPV6)
            for kind, one in (("logs in", "2001:db8:1::20"), *((kind, new) for kind in kinds))
        ]
    networks = chosen.choice((range(1, 5), range(0x1E, 0x23)))
    addresses = [f"2001:db8:7:{network:x}::5" for network in networks] * chosen.randint(1, 6)
    return [Act("guesses", address, here=HERE_BY_IPV6) for address in addresses]


def _insider(chosen: random.Random) -> list[Act]:
    """Log in, then guess at another account between failures at its own one."""
    transport = chosen.choice(("UDP", "TLS"))
    number = chosen.randint(1, 8)
    return [
        Act("logs in", INSIDER),
        *(Act("covers a guess", INSIDER, transport=transport) for _ in range(number)),
    ]


def _neighbours(chosen: random.Random) -> list[Act]:
    """Send text by a relay of the host, or log in at another SIP server of the host."""
    other = chosen.choice((VICTIM, TRUNK, *PHONES))
    act = chosen.choice((Act("relays text", ATTACKERS[0], other), Act("logs in at another server", LAMPS)))
    return [act] * chosen.randint(1, 6)


CAST: dict[str, _Cast] = {
    "phone": _phone,
    "guesser": _guesser,
    "scanner": _scanner,
    "hider": _hider,
    "forger": _forger,
    "elsewhere": _elsewhere,
    "one call": _one_call,
    "lamps": _lamps,
    "blind": _blind,
    "office": _office,
    "elsewhere at home": _elsewhere_at_home,
    "softphone": _softphone,
    "neighbours": _neighbours,
    "insider": _insider,
}


def world(seed: int, cast: Sequence[str] = tuple(CAST)) -> tuple[Act, ...]:
    """Return the actions of the world with this seed."""
    chosen = random.Random(seed)  # noqa: S311 - a world, no secret
    parts = [CAST[chosen.choice(cast)](chosen) for _ in range(chosen.randint(1, 4))]
    acts = list[Act]()
    while parts:
        part = chosen.choice(parts)
        act = part.pop(0)
        wait = chosen.choice((0.01, 0.2, 1.0, 1.0, 3.0, 35.0))
        late = chosen.choice((0.0, 0.0, 0.0, 0.5, 2.0))
        order = chosen.randrange(1 << 16)
        acts.append(replace(act, wait=wait, order=order, late=late))
        parts = [one for one in parts if one]
    return tuple(acts)
