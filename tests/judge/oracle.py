"""The judge: from what was truly sent, the attempts, and the bans that may and must follow.

It is written from the documentation alone and shares no code with ringfence; a test asserts that. So it
cannot agree by construction. Addresses and scopes are plain text.

Six invariants are checked after each step:

- F: an address that sent nothing gets no full ban, and a narrow one only if its UDP address was forged. No
  ban is wider than its participants. No true report is called forged.
- C: each wrong guess counts exactly once, or is one of :data:`EXCEPTIONS`; the sender is banned at its limit,
  and in full if its guesses are proven. A friend is banned if it guesses at others' accounts like a program.
- P: no phone with the right password, no trunk and no friend within its limits is cut off.
- E: when all is quiet, the kernel, the ledger, the store and the list of bans agree.
- A: the alarm about a crowd of senders that hide shows the one that hides most.
- B: the memory and the number of claimed bans stay within their bounds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

# -- docs/rules.md
WINDOW = 600.0
GUESSES = 5
FRIEND_GUESSES = 180
FRIEND_HURRY, HURRY_HIDDEN, HURRY_WINDOW = 22, 20, 30.0
HURRY_MORE, HURRY_MOST = 2, 40
"""A friend may guess so often more for each further account, and at most so often."""
FRIEND_ACCOUNTS = 20
EACH, OF_EACH = 2, 20
"""Each account of a friend counts at most so often for the limit over ten minutes."""
NEW_FRIENDS, GUILTY = 8, 20
TRIED, SWIFT, SWIFT_WINDOW = 3, 10, 33.0
"""GUILTY guesses are an account's if they are at so many others, or if some are swift."""
HURRIED, HURRIED_WINDOW = 12, 2.5
FULL_AT_LEAST = 2
"""The fewest attempts of any rule that bans without a decoy: ``distributed`` bans at a second failure.

Where a guilty account logs in, one guess is a ban.
"""
ATTACKERS, SEVERAL, FAILURES, ATTACK_WINDOW = 8, 3, 20, 3_600.0
"""So many addresses, or failures of SEVERAL, are a distributed attack: then one failure is a narrow ban."""

# -- docs/evidence.md
FOLLOWED_WITHIN = 60.0
KEPT_OF_A_REQUEST, KEPT_ANYWAY = 4_000, 100_000  # bytes

FULL, SIP, SIP_UDP, SIP_TCP = "full", "sip", "sip-udp", "sip-tcp"
COVERS = {FULL: ("UDP", "TCP"), SIP: ("UDP", "TCP"), SIP_UDP: ("UDP",), SIP_TCP: ("TCP",)}

MINUTE = 60.0
CROWD = 100
CUSTOMERS = (60, 56, 52)
"""The prefix lengths by which a /48 may be divided."""

EXCEPTIONS = {
    "blind": "ringfence counts it after eight seconds, if Asterisk has answered any stranger who asked "
    "within the next minute.",
    "lost": "A guess among them that neither AMI nor the log reports is not counted. A call that chan_sip "
    "refuses after a lost `100 Trying` counts as a guess.",
    "container": "Hidden guesses by TLS, and attempts by TCP or TLS that only the log reports, are only "
    "listed there.",
    "question": "A request without credentials is refused by a challenge, which shows nothing about the "
    "account.",
}
"""The guesses that need not count, and the logins that may, by name: docs/evidence.md has these sentences."""


@dataclass(frozen=True)
class Sent:
    """One request that truly reached Asterisk, and what Asterisk made of it.

    ``sender`` is the machine that sent it, ``source`` the source address of its packet: they differ only if
    the sender forged it. ``known``: Asterisk has the account. ``credentials`` are none, wrong or right.
    ``exception`` is a name in :data:`EXCEPTIONS`, or "". ``nonce`` is in the answer, or in the guess.
    ``answered`` is the address to which the answer goes, "" if it goes to nowhere. ``blames`` is the address
    that the text of the request names to the log. ``hides``: the request suppresses Asterisk's events.
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
    nonce: str = ""
    answered: str = ""
    blames: str = ""
    hides: bool = False

    @property
    def forged(self) -> bool:
        """Whether the source address is not the sender's."""
        return self.sender != self.source


Bans = frozenset[tuple[str, str]]
"""Bans as pairs of a network and a scope."""


@dataclass(frozen=True)
class View:
    """The guard as it is seen from outside: its bans in four places, and the attempts of each address.

    ``forged`` is how many reports about each address it calls forged, ``hiding`` the addresses that its alarm
    about hidden attempts shows, and ``kept`` its memory (bytes, only when all is quiet).
    """

    kernel: Bans
    ledger: Bans
    store: Bans
    listed: Bans
    counted: dict[str, int]
    forged: dict[str, int] = field(default_factory=dict)
    hiding: frozenset[str] = frozenset()
    kept: int = 0


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


def host_of(address: str) -> str:
    """Return what stands for a host: its IPv4 address, or the /64 of its IPv6 address."""
    return str(ip_network((address, 64), strict=False)) if ":" in address else address


class Judge:
    """Knows the truth of one world; ``trunks`` are addresses at which this PBX registers.

    ``claims`` is the greatest number of new claimed bans a minute. ``sees_all``: no report is lost.
    """

    def __init__(self, trunks: Iterable[str] = (), claims: int = 600, *, sees_all: bool = True) -> None:
        self._trunks = frozenset(trunks)
        self._claims = claims
        self._sees_all = sees_all
        self._sent: list[Sent] = []
        self._attempts: list[Sent] = []
        self._attempts_of: defaultdict[str, list[Sent]] = defaultdict(list)  # by source
        self._questions: dict[tuple[str, str], list[Sent]] = {}  # of which no answer was wrong, by dialogue
        self._logins: dict[str, float] = {}
        self._worked: defaultdict[str, set[str]] = defaultdict(set)  # by host
        self._receivers: defaultdict[str, set[str]] = defaultdict(set)  # by nonce
        self._claimed: Bans = frozenset()
        self._claimed_at: list[float] = []

    def sent(self, request: Sent) -> None:
        """Record a request.

        A question for an unknown account may count, if its sender asks for several. A guess takes its place.
        """
        self._sent.append(request)
        if request.answered:
            self._receivers[request.nonce].add(request.answered)
        dialogue = request.source, request.dialogue
        if request.credentials == "right":
            self._questions.pop(dialogue, None)
            if not request.forged:
                self._logins.setdefault(request.source, request.time)
                self._worked[host_of(request.source)].add(request.account)
            if request.exception == "lost" and not self._sees_all:
                self._attempted(request)
        elif request.credentials == "wrong":
            questions = self._questions.get(dialogue)
            if questions:
                question = questions.pop(0)
                self._attempts.remove(question)
                self._attempts_of[question.source].remove(question)
            self._attempted(request)
        elif not request.known:
            question = replace(request, exception="question")
            self._questions.setdefault(dialogue, []).append(question)
            self._attempted(question)

    def _attempted(self, request: Sent) -> None:
        self._attempts.append(request)
        self._attempts_of[request.source].append(request)

    def attempts(self, source: str) -> tuple[int, int]:
        """Return the least and the greatest number of attempts that may count for a source address."""
        own = self._attempts_of.get(source, [])
        return sum(map(self._must_count, own)), len(own)

    def _must_count(self, attempt: Sent) -> bool:
        """Whether an attempt is no exception. A blind one is none if a stranger is answered next."""
        if attempt.exception in ("blind", "lost") and not self._sees_all:
            return False
        if attempt.exception != "blind":
            return attempt.exception in ("", "lost")
        followed = (
            one.answered and one.source not in self._logins and one.source not in self._trunks
            for one in self._sent
            if 0 < one.time - attempt.time < FOLLOWED_WITHIN
        )
        return any(followed)

    def _is_proven(self, attempt: Sent) -> bool:
        """Whether the sender has a connection, or its guess repeats a nonce that was sent to it alone."""
        if attempt.transport != "UDP":
            return True
        return attempt.credentials == "wrong" and self._receivers[attempt.nonce] == {attempt.source}

    def check(self, view: View, now: float, *, quiet: bool) -> list[Violation]:
        """Return every invariant that the guard violates now. ``quiet``: no report is on its way."""
        found = [*self._framed(view), *self._overcounted(view), *self._cut_off(view, now)]
        found += self._too_many_claims(view, now)
        if quiet:
            found += [*self._uncounted(view), *self._free(view, now), *self._unstopped(view, now)]
            found += [*_disagree(view), *self._hidden_from_view(view), *self._too_much_kept(view)]
        return found

    # -- F

    def _framed(self, view: View) -> Iterator[Violation]:
        for network, scope in sorted(view.kernel):
            inside = [one for one in self._attempts if _inside(one.source, network)]
            least = 1 if any(self._has_guilty_account(one.source) for one in inside) else FULL_AT_LEAST
            own = [request for request in inside if not request.forged]
            forged = [request for request in inside if request.forged and request.transport == "UDP"]
            ban = f"{network} has a ban ({scope})"
            if scope in (SIP_UDP, SIP_TCP) and any(map(self._is_in_attack, own)):
                continue
            if scope == SIP_UDP and len(own) + len(forged) < least:
                yield Violation("F", f"{ban} after {len(own)} attempts and {len(forged)} forged ones")
            elif scope != SIP_UDP and not own:
                yield Violation("F", f"{ban} and made no attempt; {len(forged)} were forged")
            elif scope != SIP_UDP and len(inside) < least:
                yield Violation(
                    "F", f"{ban} after {len(own)} attempts of its own and {len(forged)} forged ones"
                )
            elif _network(network).prefixlen in (48, *CUSTOMERS) and _narrower(network, own):
                yield Violation("F", f"{ban}, but {_narrower(network, own)} has all participants")
        for address, number in sorted(view.forged.items()):
            said = sum(address in (one.blames, one.source * one.forged) for one in self._sent)
            if number > said:
                yield Violation("F", f"{number} reports about {address} are called forged; {said} may be")

    def _is_in_attack(self, attempt: Sent) -> bool:
        """Whether many addresses tried the account of an attempt within the hour around it."""
        tries = [
            one.source
            for one in self._attempts
            if one.account == attempt.account and abs(one.time - attempt.time) < ATTACK_WINDOW
        ]
        number = len({*tries})
        return number >= ATTACKERS or (number >= SEVERAL and len(tries) >= FAILURES)

    # -- C

    def _overcounted(self, view: View) -> Iterator[Violation]:
        for source, number in sorted(view.counted.items()):
            most = len(self._attempts_of.get(source, ()))
            if number > most:
                yield Violation("C", f"{source} made {most} attempts, and {number} were counted")

    def _uncounted(self, view: View) -> Iterator[Violation]:
        for source in sorted({one.source for one in self._attempts}):
            least, number = self.attempts(source)[0], view.counted.get(source, 0)
            if number < least:
                yield Violation("C", f"{source} made {least} attempts, and {number} were counted")

    def _free(self, view: View, now: float) -> Iterator[Violation]:
        """Yield strangers that reached the limit of ``guess`` by one transport and can go on.

        If attempts by both transports are mixed, too few of them may be proven for a ban of TCP.
        """
        by_source = defaultdict[str, list[Sent]](list)
        for one in self._attempts:
            if now - one.time < WINDOW / 2 and not one.forged and self._must_count(one):
                by_source[one.source].append(one)
        for source, own in sorted(by_source.items()):
            transports = {request.transport for request in own}
            if source in self._trunks or self._worked[host_of(source)]:
                continue
            if len(own) < GUESSES or len(transports) > 1:
                continue
            if not drops(view.kernel, source, own[-1].transport):
                yield Violation("C", f"{source} made {len(own)} attempts and is not banned")
            elif self._sees_all and all(map(self._is_proven, own)) and not drops(view.kernel, source, "TCP"):
                yield Violation("C", f"{source} made {len(own)} proven attempts and has no full ban")

    def _unstopped(self, view: View, now: float) -> Iterator[Violation]:
        """Yield friends that guessed at others' accounts like a program, by one transport, and can go on.

        The window is a second shorter here, because times are rounded.
        """
        for source in sorted(self._logins.keys() - self._trunks):
            own = [one for one in self._attempts_of.get(source, ()) if self._is_of_friend(one, now)]
            transports = {"UDP" if one.transport == "UDP" else "TCP" for one in own}
            if len(transports) != 1:
                continue
            together = [
                [one for one in own if 0 <= one.time - first.time < HURRY_WINDOW - 1.0] for first in own
            ]
            fastest = max(together, key=len)
            further = len({one.account for one in fastest}) - 1
            most = min(FRIEND_HURRY + HURRY_MORE * further, HURRY_MOST)
            if len(fastest) >= most and not drops(view.kernel, source, transports.pop()):
                yield Violation(
                    "C", f"{source} is a friend, made {len(fastest)} fast guesses and is not banned"
                )

    def _is_of_friend(self, attempt: Sent, now: float) -> bool:
        """Whether an attempt surely counts against the friend at its source, and a ban for it lasts."""
        source = attempt.source
        if attempt.forged or not attempt.known or attempt.account in self._worked[host_of(source)]:
            return False
        lasts = now - attempt.time < WINDOW / 2 and attempt.time > self._logins[source]
        return lasts and self._must_count(attempt) and self._is_proven(attempt)

    # -- P

    def _cut_off(self, view: View, now: float) -> Iterator[Violation]:
        for address in sorted(self._trunks | {one.source for one in self._sent if not one.forged}):
            if address not in self._trunks and not self._is_spared(address, now):
                continue
            for transport in ("UDP", "TCP"):
                if drops(view.kernel, address, transport):
                    whose = "a trunk" if address in self._trunks else "a friend within its limits"
                    yield Violation("P", f"{address} is {whose}, and its {transport} is dropped")
                    break

    def _is_spared(self, address: str, now: float) -> bool:
        """Whether an address must not be banned.

        It is a phone within its limits, or a phone's new address: in a /64 without strangers, it fails on
        accounts that worked there.
        """
        if address in self._logins:
            return self._within_limits(address, now)
        worked = self._worked.get(host_of(address))
        if worked is None:
            return False
        others = [one for one in self._attempts if host_of(one.source) == host_of(address)]
        return all(one.account in worked for one in others)

    def _within_limits(self, address: str, now: float) -> bool:
        """Whether a friend stayed below the limits of ``guess`` and ``enumeration`` in docs/rules.md.

        Attempts before the first login are a stranger's. Those on an account that worked at the address have
        no limit. Forged ones do not count.
        """
        all_own = [one for one in self._attempts_of.get(address, ()) if not one.forged]
        if any(request.time < self._logins[address] for request in all_own):
            return False
        if self._has_guilty_account(address):
            return False
        own = [request for request in all_own if request.account not in self._worked[host_of(address)]]
        others = [one for one in own if one.known]
        hidden = sum(one.hides for one in others)
        shown = Counter(one.account for one in others if not one.hides)
        if hidden + sum(min(number, EACH) for number in shown.values()) >= OF_EACH:
            return False
        recent = [one for one in own if now - one.time < 2 * WINDOW]
        times = [one.time for one in recent]
        hurried = max((sum(0 <= one - first < HURRY_WINDOW for one in times) for first in times), default=0)
        accounts = {one.account for one in recent if not one.known}
        most = HURRY_HIDDEN if hidden else FRIEND_HURRY
        return len(recent) < FRIEND_GUESSES and hurried < most and len(accounts) < FRIEND_ACCOUNTS

    def _has_guilty_account(self, address: str) -> bool:
        """Whether an account at this address makes many friends, or guesses come from its friends."""
        for account in self._worked[host_of(address)]:
            hosts = {host for host, accounts in self._worked.items() if account in accounts}
            guesses = [
                one
                for one in self._attempts
                if host_of(one.source) in hosts and one.account not in self._worked[host_of(one.source)]
            ]
            times = [one.time for one in guesses]
            fast = any(sum(0 <= one - first < HURRIED_WINDOW for one in times) >= HURRIED for first in times)
            swift = any(sum(0 <= one - first < SWIFT_WINDOW for one in times) >= SWIFT for first in times)
            spread = swift or len({one.account for one in guesses}) >= TRIED
            if len(hosts) > NEW_FRIENDS or (len(guesses) >= GUILTY and spread) or fast:
                return True
        return False

    # -- A and B

    def _hidden_from_view(self, view: View) -> Iterator[Violation]:
        """Yield the sender that hid most, if an alarm about a crowd of senders that hide lacks it."""
        hid = Counter(one.source for one in self._attempts if one.hides and not one.forged)
        (first, most), *others = hid.most_common() or [("", 0)]
        if len(others) >= CROWD and most > others[0][1] and first not in view.hiding:
            yield Violation("A", f"{first} hid {most} times, and the alarm does not show it")

    def _too_many_claims(self, view: View, now: float) -> Iterator[Violation]:
        """Yield that more claimed bans began within a minute than new ones, returning ones and a few more.

        Those of networks with a proven attempt have a limit of their own.
        """
        claimed = frozenset(one for one in view.kernel if one[1] in (SIP_UDP, SIP_TCP))
        for network, _ in claimed - self._claimed:
            inside = (one for one in self._attempts if _inside(one.source, network))
            if not any(not one.forged and self._is_proven(one) for one in inside):
                self._claimed_at.append(now)
        self._claimed = claimed
        began = sum(now - at < MINUTE for at in self._claimed_at)
        if began > 2 * self._claims + max(1, self._claims // 10):
            yield Violation(
                "B", f"{began} claimed bans began within a minute, of which {self._claims} may be new"
            )

    def _too_much_kept(self, view: View) -> Iterator[Violation]:
        most = KEPT_ANYWAY + KEPT_OF_A_REQUEST * len(self._sent)
        if view.kept > most:
            yield Violation("B", f"{view.kept} bytes are kept of {len(self._sent)} requests; {most} may be")


def _narrower(network: str, own: Iterable[Sent]) -> str:
    """Return the narrower part of a /48 that has all participants, "" if there is none."""
    for length in CUSTOMERS:
        parts = {ip_network((one.source, length), strict=False) for one in own}
        if len(parts) == 1 and length > _network(network).prefixlen:
            return str(parts.pop())
    return ""


# -- E


def _disagree(view: View) -> Iterator[Violation]:
    for name in ("ledger", "store", "listed"):
        bans = getattr(view, name)
        for network, scope in sorted(view.kernel ^ bans):
            which = "the kernel" if (network, scope) in view.kernel else name
            yield Violation("E", f"only {which} has the ban of {network} ({scope}), of the kernel and {name}")
