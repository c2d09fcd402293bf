"""What is known of everybody in the past: a row for each subject, within bounds.

A subject is what is counted and banned: an address, or the /64 of an IPv6 address. At most ``MOST`` rows are
kept: then the one goes that was never banned and is there for longest, and only where all were banned the
first of those, with its ban.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_network

from attrs import define

from ringfence.detect.detector import Judgement, Standing
from ringfence.detect.judge import Decision
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.model import Address, Network

MOST = 12_288
"""Some 12 MB, with what the detector keeps of those that are banned."""

_IPV6_SUBJECT = 64


@define
class Row:
    """One subject. ``address`` is one of its addresses; ``alone``: no other was seen.

    ``bans`` says when each ban would have begun, ``banned_at_attempt`` how many attempts there were at the
    first, ``later_succeeded`` whether somebody logged in from here after it. ``withheld`` of the ``attempts``
    ban nobody, since they may be blamed on a stranger; ``allowed``: nobody here is ever banned.
    """

    address: Address
    alone: bool = True
    events: int = 0
    attempts: int = 0
    withheld: int = 0
    allowed: bool = False
    banned_at_attempt: int | None = None
    rule: str | None = None
    bans: tuple[float, ...] = ()
    later_succeeded: bool = False

    @property
    def name(self) -> str:
        """The subject as people read it: the address, or the /64 where several of its addresses were seen."""
        return str(self.address if self.alone else ip_network((self.address, _IPV6_SUBJECT), strict=False))

    def ban(self, decision: Decision, now: float) -> float:
        """Take a ban that begins ``now``; give its length, which grows with each return.

        One on a mere claim is no reason for a longer one.
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
        """Take a login that succeeded."""
        self.later_succeeded |= bool(self.bans) and now >= self.bans[0]


class Accounts:
    """The rows, by their subjects. ``evicted`` counts those that there was no room for.

    ``let_go`` is told the subject of a ban that is forgotten.
    """

    def __init__(self, most: int = MOST, let_go: Callable[[Network], object] = id) -> None:
        self.evicted = 0
        self._most = most
        self._let_go = let_go
        # By number: to find a network takes several times as long.
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._banned: OrderedDict[int, Row] = OrderedDict()
        self._subjects: dict[int, Network] = {}  # of those that were banned

    def __iter__(self) -> Iterator[Row]:
        """Give the rows: who was banned first, in the order of the bans."""
        yield from self._banned.values()
        yield from self._rows.values()

    def of(self, subject: Network, address: Address) -> Row:
        """Give the row of a subject, of which ``address`` was seen."""
        key = _key(subject, address)
        row = self._banned.get(key) or self._rows.get(key)
        if row is None:
            if len(self._rows) + len(self._banned) >= self._most:
                self._evict()
            row = self._rows[key] = Row(address)
        elif key < 0 and row.address != address:
            row.alone = False
        return row

    def judged(self, judgement: Judgement, now: float) -> float | None:
        """Take an attempt; give how long the ban is that follows, if one does."""
        subject, address = judgement.subject, judgement.attempt.address
        row = self.of(subject, address)
        row.attempts += judgement.standing is not Standing.PROVEN
        if judgement.standing is Standing.LATE:
            return None
        row.withheld += judgement.standing is Standing.WITHHELD
        row.allowed |= judgement.standing is Standing.NEVER_BANNED
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
            self._let_go(self._subjects.pop(key))


def _key(subject: Network, address: Address) -> int:
    return int(address) if isinstance(address, IPv4Address) else -1 - int(subject.network_address)
