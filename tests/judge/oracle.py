"""The judge: from what was truly sent, the attempts, and the bans that may and must follow.

It is written from the documentation alone and shares no code with ringfence; a test asserts that. So it
cannot agree by construction. Addresses and scopes are plain text.

Four invariants are checked after each step:

- F: an address that sent nothing gets no full ban, and a narrow one only if its UDP address was forged.
- C: each wrong guess counts exactly once, or is one of :data:`EXCEPTIONS`; the sender is banned at its limit.
- P: no phone with the right password, no trunk and no friend within its limits is cut off.
- E: when all is quiet, the kernel, the ledger, the store and the list of bans agree.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

# -- docs/rules.md
WINDOW = 600.0
GUESSES = 5
FRIEND_GUESSES = 180
FRIEND_HURRY, HURRY_WINDOW = 30, 15.0
FRIEND_ACCOUNTS = 20
FULL_AT_LEAST = 2
"""The fewest attempts of any rule that bans without a decoy: ``distributed`` bans at a second failure."""

FULL, SIP, SIP_UDP, SIP_TCP = "full", "sip", "sip-udp", "sip-tcp"
COVERS = {FULL: ("UDP", "TCP"), SIP: ("UDP", "TCP"), SIP_UDP: ("UDP",), SIP_TCP: ("TCP",)}

EXCEPTIONS = {
    "tls": "Without AMI none is counted.",
}
"""The guesses that need not count, by name: the sentence of docs/evidence.md that names each."""


@dataclass(frozen=True)
class Sent:
    """One request that truly reached Asterisk, and what Asterisk made of it.

    ``sender`` is the machine that sent it, ``source`` the source address of its packet: they differ only if
    the sender forged it. ``known``: Asterisk has the account. ``credentials`` are none, wrong or right.
    ``exception`` is a name in :data:`EXCEPTIONS`, or "".
    """

    time: float
    sender: str
    source: str
    transport: str
    dialogue: str
    account: str
    known: bool
    credentials: str
    exception: str = ""

    @property
    def forged(self) -> bool:
        """Whether the source address is not the sender's."""
        return self.sender != self.source


@dataclass(frozen=True)
class Attempt:
    """One thing that a remote party did: it guessed a password or an account."""

    request: Sent
    certain: bool


Bans = frozenset[tuple[str, str]]
"""Bans as pairs of a network and a scope."""


@dataclass(frozen=True)
class View:
    """The guard as it is seen from outside: its bans in four places, and the attempts of each address."""

    kernel: Bans
    ledger: Bans
    store: Bans
    listed: Bans
    counted: dict[str, int]


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, and the facts that show it."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@lru_cache(maxsize=1 << 14)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


def _inside(address: str, network: str) -> bool:
    inner, outer = _network(address), _network(network)
    return inner.version == outer.version and int(inner[0]) in range(int(outer[0]), int(outer[-1]) + 1)


def drops(kernel: Iterable[tuple[str, str]], address: str, transport: str) -> bool:
    """Whether the bans drop SIP packets of an address by a transport."""
    return any(transport in COVERS[scope] and _inside(address, network) for network, scope in kernel)


class Judge:
    """Knows the truth of one world; ``trunks`` are addresses at which this PBX registers."""

    def __init__(self, trunks: Iterable[str] = ()) -> None:
        self._trunks = frozenset(trunks)
        self._sent: list[Sent] = []
        self._attempts: list[Attempt] = []
        self._owed: Counter[tuple[str, str]] = Counter()
        self._logins: dict[str, float] = {}
        self._worked: defaultdict[str, set[str]] = defaultdict(set)

    def sent(self, request: Sent) -> None:
        """Record a request. Of an unknown account, the question is the attempt, and its answer is owed."""
        self._sent.append(request)
        dialogue = request.source, request.dialogue
        if request.credentials == "right":
            self._owed.pop(dialogue, None)
            if not request.forged:
                self._logins.setdefault(request.source, request.time)
                self._worked[request.source].add(request.account)
        elif request.credentials == "wrong":
            if self._owed[dialogue]:
                self._owed[dialogue] -= 1
            else:
                self._attempted(request)
        elif not request.known:
            self._owed[dialogue] += 1
            self._attempted(request)

    def _attempted(self, request: Sent) -> None:
        self._attempts.append(Attempt(request, not request.exception))

    def attempts(self, source: str) -> tuple[int, int]:
        """Return the least and the greatest number of attempts that may count for a source address."""
        own = [one for one in self._attempts if one.request.source == source]
        return sum(one.certain for one in own), len(own)

    def check(self, view: View, now: float, *, quiet: bool) -> list[Violation]:
        """Return every invariant that the guard violates now. ``quiet``: no report is on its way."""
        found = [*self._framed(view), *self._overcounted(view), *self._cut_off(view, now)]
        if quiet:
            found += [*self._uncounted(view), *self._free(view, now), *_disagree(view)]
        return found

    # -- F

    def _framed(self, view: View) -> Iterator[Violation]:
        for network, scope in sorted(view.kernel):
            inside = [one.request for one in self._attempts if _inside(one.request.source, network)]
            own = [request for request in inside if not request.forged]
            forged = [request for request in inside if request.forged and request.transport == "UDP"]
            ban = f"{network} has a ban ({scope})"
            if scope == SIP_UDP and len(own) + len(forged) < FULL_AT_LEAST:
                yield Violation("F", f"{ban} after {len(own)} attempts and {len(forged)} forged ones")
            elif scope != SIP_UDP and not own:
                yield Violation("F", f"{ban} and made no attempt; {len(forged)} were forged")
            elif scope != SIP_UDP and len(inside) < FULL_AT_LEAST:
                yield Violation(
                    "F", f"{ban} after {len(own)} attempts of its own and {len(forged)} forged ones"
                )

    # -- C

    def _overcounted(self, view: View) -> Iterator[Violation]:
        for source, number in sorted(view.counted.items()):
            most = self.attempts(source)[1]
            if number > most:
                yield Violation("C", f"{source} made {most} attempts, and {number} were counted")

    def _uncounted(self, view: View) -> Iterator[Violation]:
        for source in sorted({one.request.source for one in self._attempts}):
            least, number = self.attempts(source)[0], view.counted.get(source, 0)
            if number < least:
                yield Violation("C", f"{source} made {least} attempts, and {number} were counted")

    def _free(self, view: View, now: float) -> Iterator[Violation]:
        """Yield strangers that reached the limit of ``guess`` by one transport and can go on.

        If attempts by both transports are mixed, too few of them may be proven for a ban of TCP.
        """
        by_source = defaultdict[str, list[Sent]](list)
        for one in self._attempts:
            if one.certain and now - one.request.time < WINDOW / 2:
                by_source[one.request.source].append(one.request)
        for source, requests in sorted(by_source.items()):
            transports = {request.transport for request in requests}
            if source in self._logins or source in self._trunks:
                continue
            own = [request for request in requests if not request.forged]
            if len(own) < GUESSES or len(transports) > 1:
                continue
            if not drops(view.kernel, source, own[-1].transport):
                yield Violation("C", f"{source} made {len(own)} attempts and is not banned")

    # -- P

    def _cut_off(self, view: View, now: float) -> Iterator[Violation]:
        for address in sorted(self._trunks | {one.source for one in self._sent if self._is_phone(one)}):
            if address not in self._trunks and not self._within_limits(address, now):
                continue
            for transport in ("UDP", "TCP"):
                if drops(view.kernel, address, transport):
                    whose = "a trunk" if address in self._trunks else "a friend within its limits"
                    yield Violation("P", f"{address} is {whose}, and its {transport} is dropped")
                    break

    def _is_phone(self, request: Sent) -> bool:
        """Whether the sender has logged in, as the first thing or later."""
        return not request.forged and request.source in self._logins

    def _within_limits(self, address: str, now: float) -> bool:
        """Whether a friend stayed below the limits of ``guess`` and ``enumeration`` in docs/rules.md.

        Attempts before the first login are a stranger's. Those on an account that worked at the address have
        no limit. Forged ones do not count.
        """
        all_own = [one.request for one in self._attempts if one.request.source == address]
        all_own = [request for request in all_own if not request.forged]
        if any(request.time < self._logins[address] for request in all_own):
            return False
        own = [request for request in all_own if request.account not in self._worked[address]]
        recent = [one for one in own if now - one.time < 2 * WINDOW]
        times = [one.time for one in recent]
        hurried = max((sum(0 <= one - first < HURRY_WINDOW for one in times) for first in times), default=0)
        accounts = {one.account for one in recent if not one.known}
        return len(recent) < FRIEND_GUESSES and hurried < FRIEND_HURRY and len(accounts) < FRIEND_ACCOUNTS


# -- E


def _disagree(view: View) -> Iterator[Violation]:
    for name in ("ledger", "store", "listed"):
        bans = getattr(view, name)
        for network, scope in sorted(view.kernel ^ bans):
            which = "the kernel" if (network, scope) in view.kernel else name
            yield Violation("E", f"only {which} has the ban of {network} ({scope}), of the kernel and {name}")
