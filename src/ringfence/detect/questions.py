"""Questions: requests that cannot succeed, of which nothing shows credentials, and when they are attempts.

A guess is a request with credentials. PJSIP reports each request of an account that does not exist, or that
an ACL refuses, also one without credentials: the first REGISTER of a new phone, and each OPTIONS by which a
carrier or a monitor tests whether Asterisk lives. AMI does not name the method. So such a report is a
*question*. What follows decides:

    question, challenge                          nothing
    question, challenge, question, wrong answer  a guess, when the wrong answer is reported
    many questions for different accounts        an enumeration: each account is an attempt
    a call (INVITE)                              an attempt, as nobody calls to test whether Asterisk lives

The *weight* of a question is what its method shows. A notice of the log names the method, and so does the
copy of the request on the wire. A sender that asks for ``FEW_ACCOUNTS`` different accounts by REGISTER
enumerates. An SBC may have several accounts, so with any other method, or an unknown one, it needs
``MANY_ACCOUNTS``. Asterisk before 13.10 writes no line of a wrong password, and its notices name no method:
these count like calls.

Questions are kept by host (IPv6: by /64) for ``WITHIN``. When a host has asked for enough accounts, all of
them count, each once. A decoy counts at once. Nothing is lost if a question is forgotten early: PJSIP
challenges each of them, so it shows nothing about the account.

Bounds: ``MOST_HOSTS`` hosts, the least recently used are forgotten first, and ``MOST_ACCOUNTS`` of each.
"""

from collections import OrderedDict
from collections.abc import Iterator

from attrs import Factory, define

from ringfence.detect.history import packed_account
from ringfence.detect.judgement import Pinging
from ringfence.detect.sessions import AddressKey, address_key, host_of
from ringfence.model import UNNAMED, Address, SecurityEvent, short_account

FEW_ACCOUNTS = 3
MANY_ACCOUNTS = 10
WITHIN = 600.0
"""The time (seconds) within which a host asks for so many accounts."""

MOST_HOSTS = 2_048
MOST_ACCOUNTS = 32

CALL = 2
"""The weight of a question that counts by itself."""
_WEIGHTS = {"REGISTER": 1, "INVITE": CALL, UNNAMED: CALL}

_BEST = 2
_FEWEST_PINGS = 5
_MOST_PINGING = 256


def weight_of(method: str) -> int:
    """Return the weight of a question with this SIP method; "" is an unknown one."""
    return _WEIGHTS.get(method, 0)


def trust_in(event: SecurityEvent) -> int:
    """Return how far a report is trusted: 2 for AMI, 1 for a log line, 0 if a sender can forge it."""
    if not event.source.text:
        return _BEST
    return 0 if event.forgeable else 1


@define(eq=False)
class _Question:
    """A question for one account: its latest event, when it arrived, and its greatest weight.

    ``event`` is None if it has counted. ``trust`` is that of its report (:func:`trust_in`).
    """

    event: SecurityEvent | None
    at: float
    weight: int
    trust: int


@define(eq=False)
class _Host:
    """The accounts for which a host asks, the latest last, and how often it has asked.

    ``began`` and ``last`` are the times of its first and last question (seconds since the epoch).
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
    """The questions of all hosts. ``decoys`` are the accounts of which each question counts."""

    def __init__(self, most: int = MOST_HOSTS) -> None:
        self.decoys = frozenset[bytes]()
        self._most = most
        self._hosts: OrderedDict[AddressKey, _Host] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of hosts."""
        return len(self._hosts)

    def record(self, event: SecurityEvent, method: str, now: float) -> None:
        """Record that a question of ``event`` arrived at ``now``; ``method`` is "" if it is unknown."""
        host = self._host(event, now)
        host.number += 1
        host.last, host.account = event.time, short_account(event.account)
        host.method = method or host.method

    def counting(
        self, event: SecurityEvent, weight: int, now: float
    ) -> Iterator[tuple[SecurityEvent, float]]:
        """Yield the questions that count because of ``event``, and when each has arrived."""
        host = self._host(event, now)
        while host.accounts and now - next(iter(host.accounts.values())).at >= WITHIN:
            host.accounts.popitem(last=False)
        trust = trust_in(event)
        account = short_account(event.account)
        known = host.accounts.get(account)
        if known is None:
            known = host.accounts[account] = _Question(event, now, weight, trust)
            if len(host.accounts) > MOST_ACCOUNTS:
                host.accounts.popitem(last=False)
        elif known.event is None:
            known.at = now
            if trust > known.trust:  # a better source confirms it
                known.trust = trust
                yield event, now
        elif trust >= known.trust:
            known.event, known.at, known.trust = event, now, trust
        known.weight = max(known.weight, weight)
        host.accounts.move_to_end(account)
        for one in self._due(host, known):
            if one.event is not None:
                asked, one.event = one.event, None
                yield asked, one.at

    def settle(self, event: SecurityEvent, account: str, now: float) -> None:
        """Record that the sender of ``event`` has guessed at ``account``: its question counts no more."""
        host = self._hosts.get(address_key(host_of(event.remote.address)))
        known = host.accounts.get(account) if host is not None else None
        if known is not None:
            known.event, known.at, known.trust = None, now, _BEST

    def _due(self, host: _Host, latest: _Question) -> list[_Question]:
        """Return the questions of a host that count; ``latest`` is the one that has just come."""
        every = list(host.accounts.values())
        if len(every) >= MANY_ACCOUNTS:
            return every
        heavy = [one for one in every if one.weight]
        if len(heavy) >= FEW_ACCOUNTS:
            return heavy
        return [latest] if packed_account(next(reversed(host.accounts))) in self.decoys else []

    def _host(self, event: SecurityEvent, now: float) -> _Host:
        key = address_key(host_of(event.remote.address))
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = _Host(event.remote.address, event.time)
            if len(self._hosts) > self._most:
                self._hosts.popitem(last=False)
        else:
            self._hosts.move_to_end(key)
        host.used = now
        return host

    def expire(self, now: float) -> None:
        """Forget the hosts that have asked nothing for ``WITHIN``."""
        while self._hosts and now - next(iter(self._hosts.values())).used >= WITHIN:
            self._hosts.popitem(last=False)

    def pinging(self, address: Address | None = None) -> list[Pinging]:
        """Return the hosts that ask again and again, for few accounts; or only that of ``address``."""
        if address is None:
            hosts = list(self._hosts.values())
        else:
            host = self._hosts.get(address_key(host_of(address)))
            hosts = [host] if host is not None else []
        found = [
            Pinging(one.address, one.number, one.began, one.last, one.method, one.account)
            for one in hosts
            if one.number >= _FEWEST_PINGS and all(each.event is not None for each in one.accounts.values())
        ]
        return found[-_MOST_PINGING:]
