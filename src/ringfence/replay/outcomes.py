"""Outcomes of a replay: one for each subject, in a bounded table.

A subject is counted and banned as one: an address, or the /64 of an IPv6 address. At most ``MAX_OUTCOMES``
are kept. Beyond that the oldest one without a ban is discarded, or the oldest one if all are banned.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from attrs import define

from ringfence.detect.judgement import Decision, Disposition, Judgement
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.model import Address, Network
from ringfence.networks import sender_of

MAX_OUTCOMES = 12_288
"""The maximum number of outcomes. Together with what the detector keeps of them, they take some 12 MB."""


@define
class AddressOutcome:
    """The outcome of one subject. ``address`` is one of its addresses; ``single_address``: no other was seen.

    ``attempts`` is the number of attempts. ``unconfirmed`` is the number of those that ban nothing, because
    their sender may be forged. ``bans`` has the start of each ban (seconds since the epoch). ``rule`` is the
    name of the rule that led to the first ban, and ``banned_at_attempt`` the number of attempts at its start.
    ``later_succeeded``: a login succeeded after the first ban. ``exempt``: the address is never banned.
    """

    address: Address
    single_address: bool = True
    events: int = 0
    attempts: int = 0
    unconfirmed: int = 0
    exempt: bool = False
    banned_at_attempt: int | None = None
    rule: str | None = None
    bans: tuple[float, ...] = ()
    later_succeeded: bool = False

    @property
    def name(self) -> str:
        """The subject as shown to people: the address, or the /64 if several of its addresses were seen."""
        return str(self.address if self.single_address else sender_of(self.address))

    def ban(self, decision: Decision, now: float) -> float:
        """Record a ban that begins at ``now`` (seconds since the epoch); return its length in seconds.

        The length grows with each repeat ban. But a claimed ban (its attempts do not prove the sender's
        address) has the fixed length ``decision.seconds``. If the subject was banned before, a claimed ban is
        not recorded, and only its length is returned.
        """
        if decision.seconds is not None and self.banned_at_attempt is not None:
            return decision.seconds
        before = sum(began > now - RETURN_WITHIN for began in self.bans)
        if self.banned_at_attempt is None:
            self.banned_at_attempt, self.rule = self.attempts, decision.rule.name
        self.bans += (now,)
        if decision.seconds is not None:
            return decision.seconds
        return decision.rule.ban_for(before)

    def succeed(self, now: float) -> None:
        """Record a successful login at ``now`` (seconds since the epoch)."""
        self.later_succeeded |= bool(self.bans) and now >= self.bans[0]


class Outcomes:
    """The outcomes by subject. At most ``most`` are kept; ``evicted`` counts the discarded ones.

    ``released`` is called with a banned subject whose outcome is discarded. The caller then ends the ban in
    the detector too.
    """

    def __init__(self, most: int = MAX_OUTCOMES, released: Callable[[Network], object] = id) -> None:
        self.evicted = 0
        self._most = most
        self._released = released
        # Keys are integers: looking up a network takes several times as long.
        self._rows: OrderedDict[int, AddressOutcome] = OrderedDict()
        self._banned: OrderedDict[int, AddressOutcome] = OrderedDict()
        self._subjects: dict[int, Network] = {}  # the subjects that were banned

    def __iter__(self) -> Iterator[AddressOutcome]:
        """Yield the outcomes: banned subjects first, in the order of their bans."""
        yield from self._banned.values()
        yield from self._rows.values()

    def of(self, subject: Network, address: Address) -> AddressOutcome:
        """Return the outcome of ``subject``; create it if there is none.

        ``address`` is the address of the subject that was seen now.
        """
        key = _key(subject, address)
        row = self._banned.get(key) or self._rows.get(key)
        if row is None:
            if len(self._rows) + len(self._banned) >= self._most:
                self._evict()
            row = self._rows[key] = AddressOutcome(address)
        elif key < 0 and row.address != address:
            row.single_address = False
        return row

    def record(self, judgement: Judgement, now: float) -> float | None:
        """Record how the detector judged an attempt at ``now`` (seconds since the epoch).

        Return the length of the ban that the attempt causes (seconds), or None if it causes none.
        """
        subject, address = judgement.subject, judgement.attempt.address
        row = self.of(subject, address)
        row.attempts += judgement.disposition is not Disposition.PROVEN
        if judgement.disposition is Disposition.LATE:
            return None
        row.unconfirmed += judgement.disposition is Disposition.UNCONFIRMED
        row.exempt |= judgement.disposition is Disposition.EXEMPT
        if judgement.decision is None:
            return None
        key = _key(subject, address)
        if key in self._rows:
            self._banned[key] = self._rows.pop(key)
            self._subjects[key] = subject
        return row.ban(judgement.decision, now)

    def _evict(self) -> None:
        self.evicted += 1
        if self._rows:
            self._rows.popitem(last=False)
        else:
            key, _ = self._banned.popitem(last=False)
            self._released(self._subjects.pop(key))


def _key(subject: Network, address: Address) -> int:
    return int(address) if isinstance(address, IPv4Address) else -1 - int(subject.network_address)
