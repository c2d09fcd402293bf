"""Questions: requests without known credentials that cannot succeed, and when they count as attempts.

A guess is a request with credentials. PJSIP reports each request of an account that does not exist, or that
an ACL refuses, also one without credentials: the first REGISTER of a new phone, and each OPTIONS by which a
carrier or a monitor tests whether Asterisk lives. AMI does not name the method. So such a report is a
*question*. The requests after it decide:

    question, challenge                          nothing
    question, challenge, question, wrong answer  a guess, when the wrong answer is reported
    many questions for different accounts        an enumeration: each account is an attempt
    a call (INVITE)                              an attempt: no monitor calls to test whether Asterisk lives

The *weight* of a question is what its method shows. A notice of the log names the method, and so does the
copy of the request on the wire. A sender that asks for ``FEW_ACCOUNTS`` different accounts by REGISTER
enumerates. An SBC may have several accounts, so with any other method, or an unknown one, it needs
``MANY_ACCOUNTS``. Asterisk before 13.10 writes no line of a wrong password, and its notices name no method:
these count like calls.

Questions are kept by host (IPv6: by /64) for a day. When a host has asked for enough accounts within ten
minutes (``WITHIN``), these accounts can count, each once. ``DAILY_ACCOUNTS`` accounts within a day are enough
too, whatever the method. A decoy counts at once. Nothing is lost if a question is forgotten early: PJSIP
challenges each of them, so it shows nothing about the account.

Any sender can forge a weak report. So a question counts only if enough accounts have a report that is trusted
at least as much (:func:`trust_in`). The report that shows a weight must be trusted as much, too.

Bounds: ``MOST_HOSTS`` hosts that a handshake proves, and as many others; the least recently used host is
forgotten first. ``MOST_ACCOUNTS`` accounts of a host; the least trusted account is forgotten first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import inf
from operator import attrgetter

from attrs import Factory, define

from ringfence.detect.history import packed_account
from ringfence.detect.judgement import Pinging
from ringfence.detect.rules import DAY
from ringfence.detect.sessions import AddressKey, address_key, host_of, proof_of
from ringfence.values.attempt import Proof
from ringfence.values.event import UNNAMED, SecurityEvent
from ringfence.values.network import Address

FEW_ACCOUNTS = 3
MANY_ACCOUNTS = 10
WITHIN = 600.0
"""The period in seconds in which the accounts for which a host sends requests are counted together."""

DAILY_ACCOUNTS = 20

MOST_HOSTS = 2_048
MOST_ACCOUNTS = 32

CALL = 2
"""The weight of a request without credentials that is an attempt by itself, such as a call."""
_WEIGHTS = {"REGISTER": 1, "INVITE": CALL, UNNAMED: CALL}

_HANDSHAKE = 3
_FEWEST_PINGS = 5
_MOST_PINGING = 256


def weight_of(method: str) -> int:
    """Return how much a request without credentials weighs by its SIP method: 0, 1, or ``CALL``."""
    return _WEIGHTS.get(method, 0)


def trust_in(event: SecurityEvent) -> int:
    """Return how far the sender that an event names is trusted, from 0 to 3.

    3: a handshake proves the address; 2: AMI or a copied packet, but the sender may be forged; 1: a line of
    the log; 0: a sender can forge the event.
    """
    if event.forgeable or event.tampered:
        return 0
    if event.source.text:
        return 1
    return _HANDSHAKE if proof_of(event) is Proof.HANDSHAKE else 2


@define(eq=False)
class _Question:
    """The requests of one host without credentials for one account: the latest event, and its arrival.

    ``event`` is None once it has counted as an attempt. The other fields are values of :func:`trust_in`, -1
    if there is none: ``trust`` of the best report, ``weighed`` of the best report that shows a weight, and
    ``counted`` of the best report that has counted.
    """

    event: SecurityEvent | None
    at: float
    trust: int = -1
    weighed: int = -1
    counted: int = -1


@define(eq=False)
class _Host:
    """The accounts for which a host sent requests without credentials, the latest last, and how many.

    ``began`` and ``last`` are the times of its first and last request (seconds since the epoch). ``began``
    and ``number`` start again after ten minutes without a request.
    """

    address: Address
    began: float
    last: float = 0.0
    used: float = 0.0
    number: int = 0
    method: str = ""
    account: str = ""
    accounts: OrderedDict[str, _Question] = Factory(OrderedDict)


class Questions:
    """Requests without credentials, by host. One for an account in ``decoys`` is an attempt."""

    def __init__(self, most: int = MOST_HOSTS) -> None:
        self.decoys = frozenset[bytes]()
        self._most = most
        self._now = 0.0
        self._claimed: OrderedDict[AddressKey, _Host] = OrderedDict()
        self._proven: OrderedDict[AddressKey, _Host] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of hosts that are remembered."""
        return len(self._claimed) + len(self._proven)

    def record(self, event: SecurityEvent, method: str, now: float) -> None:
        """Record the request without credentials that ``event`` reports; its ``method`` is "" if unknown."""
        host = self._host(event, now)
        host.number += 1
        host.last, host.account = event.time, event.account
        host.method = method or host.method

    def counting(
        self, event: SecurityEvent, weight: int, now: float
    ) -> Iterator[tuple[SecurityEvent, float]]:
        """Record a request without credentials; yield the events that are attempts now, with their arrival.

        These may be events of earlier requests without credentials. ``weight`` is the weight of the
        request's method (:func:`weight_of`). Iterate to the end, because each step records what has counted.
        """
        host = self._host(event, now)
        trust = trust_in(event)
        account = event.account
        known = host.accounts.setdefault(account, _Question(event, now))
        if known.event is None:
            known.at = now
            if trust > known.counted:  # a better source confirms it
                known.counted = trust
                yield event, now
        elif trust >= known.trust:
            known.event, known.at = event, now
        known.trust = max(known.trust, trust)
        if weight:
            known.weighed = max(known.weighed, trust)
        host.accounts.move_to_end(account)
        if len(host.accounts) > MOST_ACCOUNTS:
            del host.accounts[min(host.accounts, key=lambda each: host.accounts[each].trust)]
        for one in [known] if packed_account(account) in self.decoys else _due(host, now):
            if one.event is not None:
                asked, one.event = one.event, None
                one.counted = trust_in(asked)
                yield asked, one.at

    def settle(self, event: SecurityEvent, account: str, now: float) -> None:
        """Record a guess at ``account``, so that the sender's earlier request for it no longer counts."""
        host = self._find(event.remote.address)
        known = host.accounts.get(account) if host is not None else None
        if host is not None and known is not None:
            known.event, known.at, known.counted = None, now, _HANDSHAKE
            known.trust = max(known.trust, trust_in(event))
            host.accounts.move_to_end(account)

    def _find(self, address: Address) -> _Host | None:
        key = address_key(host_of(address))
        return self._proven.get(key) or self._claimed.get(key)

    def _host(self, event: SecurityEvent, now: float) -> _Host:
        """Return the counts of the host that sent ``event``, created if needed, as the one used last."""
        key = address_key(host_of(event.remote.address))
        proven = key in self._proven or trust_in(event) == _HANDSHAKE
        host = self._claimed.pop(key, None) or self._proven.pop(key, None)
        if host is None:
            host = _Host(event.remote.address, event.time)
        elif now - host.used >= WITHIN:
            host.number, host.began = 0, event.time
        table = self._proven if proven else self._claimed
        table[key] = host
        if len(table) > self._most:
            table.popitem(last=False)
        host.used = now
        return host

    def expire(self, now: float) -> None:
        """Forget the hosts that have sent no request without credentials for a day."""
        self._now = now
        for table in (self._claimed, self._proven):
            while table and now - next(iter(table.values())).used >= DAY:
                table.popitem(last=False)

    def pinging(self, address: Address | None = None) -> list[Pinging]:
        """Return the hosts that send requests without credentials again and again, but no attempts.

        With ``address`` only its host is returned; otherwise at most 256, those that asked last.
        """
        if address is None:
            hosts = sorted((*self._claimed.values(), *self._proven.values()), key=attrgetter("used"))
        else:
            host = self._find(address)
            hosts = [host] if host is not None else []
        found = [
            Pinging(one.address, one.number, one.began, one.last, one.method, one.account)
            for one in hosts
            if one.number >= _FEWEST_PINGS
            and self._now - one.used < WITHIN
            and all(each.event is not None for each in one.accounts.values())
        ]
        return found[-_MOST_PINGING:]


def _due(host: _Host, now: float) -> list[_Question]:
    """Return the requests of ``host`` that are attempts now, because they are for enough accounts."""
    today = [one for one in host.accounts.values() if now - one.at < DAY]
    latest = [one for one in today if now - one.at < WITHIN]
    daily = _reached(DAILY_ACCOUNTS, [one.trust for one in today])
    many = _reached(MANY_ACCOUNTS, [one.trust for one in latest])
    few = _reached(FEW_ACCOUNTS, [one.weighed for one in latest])
    return [
        one
        for one in today
        if one.trust <= daily or (now - one.at < WITHIN and one.trust <= max(many, min(few, one.weighed)))
    ]


def _reached(number: int, values: Sequence[int]) -> float:
    """Return the greatest value that at least ``number`` of ``values`` reach; -inf if there are fewer."""
    return sorted(values)[-number] if len(values) >= number else -inf
