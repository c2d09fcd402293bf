"""Agreement of chan_sip's events with the NOTICE lines of its log: both name the same address.

chan_sip's security events (from AMI, or as lines of the security log) name the address in the Via header,
which the sender writes. The NOTICE lines of its log name the true source, but no session. Without the wire
source (answers that leave this host, copied by the kernel), an event and a NOTICE line confirm each other if
they report the same failure of the same account from the same address. Each report confirms only one other
report. Otherwise the NOTICE line of one guess would confirm any number of events that name its sender.

An event that no NOTICE line confirms is forged in one case: the latest NOTICE line of the same failure and
account names another address, and confirms no event.

Bound: ``MOST`` reports of the last ``HORIZON`` seconds; the oldest are discarded first.
"""

from collections import deque

from ringfence.detect.session import HORIZON, Naming
from ringfence.model import Address, EventKind, SecurityEvent

MOST = 16_384
"""The number of reports that are remembered."""

_Failure = tuple[str, EventKind, str, str]


class Agreement:
    """Finds pairs of an event and a NOTICE line that report the same, and so confirm each other."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._all: deque[tuple[_Failure, bool, Naming]] = deque()
        self._single: dict[tuple[_Failure, bool, Address], deque[Naming]] = {}
        self._notices: dict[_Failure, Naming] = {}  # the latest NOTICE line of each failure

    def __len__(self) -> int:
        """Return the number of reports."""
        return len(self._all)

    def record(self, event: SecurityEvent, now: float) -> Naming:
        """Record a report of chan_sip; return its :class:`Naming`, whose ``agrees`` may become True later.

        An event and a NOTICE line agree if they name the same failure, account and address. The later one
        sets ``agrees`` of both. Each report agrees with only one other: the oldest one that agrees with none
        yet.
        """
        while self._all and (len(self._all) >= self._most or now - self._all[0][-1].at >= HORIZON):
            self._discard_oldest()
        failure, notice, address = _failure(event), event.source.notices, event.remote.address
        naming = Naming(now, address)
        self._all.append((failure, notice, naming))
        if notice:
            self._notices[failure] = naming
        others = self._single.get((failure, not notice, address))
        if others:
            others.popleft().agrees = naming.agrees = True
            if not others:
                del self._single[failure, not notice, address]
        else:
            self._single.setdefault((failure, notice, address), deque()).append(naming)
        return naming

    def otherwise_named(self, event: SecurityEvent, at: float) -> Address | None:
        """Return the address in the latest NOTICE line about the failure in ``event``, if it differs.

        ``event`` arrived at ``at``. Return None if there is no such line within ``HORIZON``, if the line
        names the address of ``event``, or if some event agrees with the line.
        """
        notice = self._notices.get(_failure(event))
        if notice is None or notice.agrees or notice.address == event.remote.address:
            return None
        return notice.address if abs(at - notice.at) < HORIZON else None

    def _discard_oldest(self) -> None:
        failure, notice, naming = self._all.popleft()
        if self._notices.get(failure) is naming:
            del self._notices[failure]
        if not naming.agrees:
            key = failure, notice, naming.address
            self._single[key].popleft()
            if not self._single[key]:
                del self._single[key]


def _failure(event: SecurityEvent) -> _Failure:
    """Return what all reports of one attempt share: the Asterisk, the kind of failure and the account."""
    return event.source.asterisk, event.kind, event.acl_name, event.account
