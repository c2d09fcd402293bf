"""Rounds of random SIP from many senders to a real Asterisk, each judged against what Asterisk truly did.

In a round, each sender uses one transport. Several times it asks for a challenge, and answers it with one or
two wrong passwords. When all is quiet, the judge (:mod:`tests.judge.oracle`) compares the attempts and bans
of the daemon with the truth (:mod:`tests.live.truth`). A clear guess that Asterisk refused must count. An
unchanged question that was challenged is no attempt. Any other request may count.

The judge's invariants F, C, P and E are checked. Nothing here hides so often that A matters, or fills memory.
"""

import enum
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

from attrs import define, field, frozen
from tests.judge.oracle import GUESSES, Bans, Judge, Sent, View, Violation, drops
from tests.live.requests import Request, changed, guess, plain
from tests.live.truth import Truth, marks_of, watched
from tests.support import netns, open_pbx
from tests.support.daemon import Guard
from tests.support.hostile_run import FRIEND, OFF, PORTS, guarded_victims, senders
from tests.support.hostile_text import ACCOUNTS, TRANSPORTS, Victim, strangers
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.scanners import NEIGHBOURS
from tests.support.sip_streams import open_wire
from tests.support.sip_wire import Wire, challenge_of, status_of

from ringfence.firewall import make_backend
from ringfence.values.network import format_network

PBXS: Mapping[str, Sequence[str]] = {"22": ("22",), "16": ("16", "16-pjsip")}
"""The kinds of PBX in each release of Asterisk."""
WAYS: Mapping[str, Sequence[str]] = {
    "22": (*TRANSPORTS["22"], "WSS"),
    "16": (*TRANSPORTS["16"], "WSS"),
    "16-pjsip": TRANSPORTS["16-pjsip"],
}
"""The transports of each PBX, with WebSocket over TLS (WSS) where it has WebSocket."""
_PORTS = {**PORTS, "22 WSS": open_pbx.HTTPS_PORT, "16 WSS": open_pbx.HTTPS_PORT}
_ENCRYPTED = frozenset({"TLS", "WSS"})
IN_A_ROUND = 48
AT_ONCE = 12
"""The senders that send at the same time: more would keep the daemon behind on two processors."""
EXCHANGES = 2 * GUESSES
"""Questions of each sender; a guess or two follow each challenge."""
QUIET = 10.0
"""Seconds to wait after a round, until hidden attempts are counted, and all lists of bans agree."""
_PATIENCE = 0.25
_LAG = 0.06
"""Seconds between two exchanges, in which the daemon reads the reports."""
_AT = 0.0
"""The time of every request for the judge. One is enough: a round is shorter than the window of `guess`."""
CHECKED = {"22": frozenset({401}), "16": frozenset({403}), "16-pjsip": frozenset({401})}
"""The statuses that show that a password was checked. chan_sip also challenges without a check."""
CHALLENGES = frozenset({401, 407})
DELAY = 0.1
"""Seconds from a sender's guess that reaches the threshold, until no later guess may be refused."""
_BY_BYTES = frozenset({"unexplained"})
"""Attempts that ringfence infers from bytes it cannot read. Their number depends on the packets, so it is not
compared."""
RULES = {**NEIGHBOURS, "enumeration": OFF, "slow": OFF}
"""The rules that are off."""


@define
class Sender:
    """One attacker: its address, its way to a PBX, the host that its text names, and its requests.

    Each request gets a mark of its own, from ``first_mark`` on; ``sent`` has their times. ``received`` has
    the messages that came, each with the mark of the request that was sent last.
    """

    address: str
    pbx: str
    transport: str
    victim: Victim
    seed: str
    first_mark: int
    requests: list[Request] = field(factory=list)
    received: list[tuple[int, bytes]] = field(factory=list)
    sent: list[float] = field(factory=list)

    def play(self, lab: Lab) -> None:
        """Ask and guess several times. A stream on which no answer came may be broken: open another one."""
        chosen = random.Random(self.seed)  # noqa: S311 - no secret
        left = EXCHANGES
        with netns.inside(lab.network.attacker), suppress(OSError):
            while left:
                with closing(self._open()) as wire:
                    answered = True
                    while left and (answered or self.transport == "UDP"):
                        answered = self._exchange(wire, chosen)
                        left -= 1
                        time.sleep(_LAG)

    def _open(self) -> Wire:
        where = PBX_IPV4, _PORTS[f"{self.pbx} {self.transport}"]
        return open_wire(self.transport, where, self.address, 1.0)

    def _exchange(self, wire: Wire, chosen: random.Random) -> bool:
        """Ask, and guess once or twice if a challenge comes; return whether the last request was answered."""
        where = wire.contact, self.transport
        raw = plain(chosen, ACCOUNTS[self.pbx], self._mark())
        most = chosen.choice((0, 0, 1))
        answer = self._ask(wire, changed(chosen, raw, where, self._mark(), self.victim, most))
        challenge = challenge_of(answer or b"")
        if challenge is not None:
            for more in range(chosen.choice((1, 1, 2))):
                guessed = guess(raw, challenge, more)
                answer = self._ask(wire, changed(chosen, guessed, where, self._mark(), self.victim, 3))
        return answer is not None

    def _mark(self) -> int:
        return self.first_mark + len(self.requests)

    def _ask(self, wire: Wire, request: Request) -> bytes | None:
        """Send a request, and return its final answer; None if none comes.

        Asterisk repeats its answers to a call, so one with the mark of another request is not this one's.
        """
        self.requests.append(request)
        self.sent.append(time.monotonic())
        wire.send(request.data)
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            message = wire.receive(left)
            if message is None:
                return None
            self.received.append((request.mark, message))
            if status_of(message) >= 200 and marks_of(message) <= {request.mark}:
                return message
        return None


class Fate(enum.Enum):
    """Whether a request must count as an attempt, may count, or is none."""

    MUST = enum.auto()
    MAY = enum.auto()
    NONE = enum.auto()


@frozen
class Record:
    """What one sender truly did: the fate that each of its requests must have, and when it was sent.

    The times are in seconds, of one clock.
    """

    address: str
    transport: str
    requests: Sequence[tuple[Fate, float]]

    @property
    def least(self) -> int:
        """How many of its requests must count."""
        return len(self._guesses())

    @property
    def beyond(self) -> Sequence[float]:
        """How many seconds after the guess that reaches the threshold each later refused guess was sent."""
        guesses = self._guesses()
        return [sent - guesses[GUESSES - 1] for sent in guesses[GUESSES:]]

    def _guesses(self) -> Sequence[float]:
        return sorted(sent for fate, sent in self.requests if fate is Fate.MUST)

    def is_banned(self, kernel: Bans) -> bool:
        """Whether bans drop what this sender sends by its transport."""
        return drops(kernel, self.address, _judged_transport(self.transport))


@frozen
class Verdict:
    """What the judge objects to, and the senders that are banned."""

    violations: Sequence[Violation]
    banned: Sequence[str]


@frozen
class Round(Verdict):
    """The result of a round: its senders too, and by address how many clear guesses were refused."""

    senders: Sequence[Sender]
    refused: Mapping[str, int]


@define
class Game:
    """Rounds against one Asterisk and one daemon.

    ``prompt``: a late ban is an objection. A machine that does other work as well bans late.
    """

    lab: Lab
    guard: Guard
    truth: Truth
    release: str
    known: Sequence[Victim]
    seed: int
    prompt: bool = False
    _addresses: Iterator[str] = field(factory=senders)
    _victims: Iterator[Victim] = field(factory=strangers)
    _mark: int = 1_000
    _earlier: set[str] = field(factory=set)
    """The addresses of the senders that were judged."""

    def play(self, number: int) -> Round:
        """Play a round, and judge it."""
        chosen = random.Random(f"{self.seed} {number}")  # noqa: S311 - no secret
        made = [self._sender(chosen, f"{self.seed} {number} {at}") for at in range(IN_A_ROUND)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: one.play(self.lab), made))
        time.sleep(QUIET)
        self.truth.read()
        for one in made:
            for _, message in one.received:
                self.truth.add(message)
        records = [
            Record(
                one.address,
                one.transport,
                [
                    (self._fate(one, request), sent)
                    for request, sent in zip(one.requests, one.sent, strict=True)
                ],
            )
            for one in made
        ]
        self.truth.answers.clear()
        verdict = self.judged(records)
        return Round(verdict.violations, verdict.banned, made, {one.address: one.least for one in records})

    def judged(self, records: Sequence[Record]) -> Verdict:
        """Judge what the daemon made of senders who are quiet now; later verdicts leave them out."""
        judge = Judge([open_pbx.TRUNK], sees_all=False)
        judge.sent(_sent(FRIEND, "UDP", 0, "right"))
        for one in records:
            for number, (fate, _) in enumerate(one.requests):
                credentials = "none" if fate is Fate.NONE else "wrong"
                exception = "question" if fate is Fate.MAY else ""
                judge.sent(_sent(one.address, one.transport, number, credentials, exception))
        view = self._view(records)
        self._earlier.update(one.address for one in records)
        banned = [one for one in records if one.is_banned(view.kernel)]
        late = [
            Violation("C", f"{one.address} got a refusal {max(one.beyond):.3f} s after its ban was due")
            for one in banned
            if self.prompt and max(one.beyond, default=0.0) > DELAY
        ]
        return Verdict([*judge.check(view, _AT, quiet=True), *late], [one.address for one in banned])

    def address(self) -> str:
        """Return the address of a new sender."""
        return next(self._addresses)

    def _sender(self, chosen: random.Random, seed: str) -> Sender:
        pbx = chosen.choice(PBXS[self.release])
        victim = chosen.choice((*self.known, None, None)) or next(self._victims)
        self._mark += 1_000
        transport = chosen.choice(WAYS[pbx])
        return Sender(self.address(), pbx, transport, victim, seed, self._mark)

    def _fate(self, sender: Sender, request: Request) -> Fate:
        """Return MUST if Asterisk has surely checked a wrong password, by a way on which ringfence sees it.

        NONE is an unchanged request without credentials that was challenged.
        """
        answers = self.truth.answers.get(request.mark, set())
        if request.question and answers and all(answer.status in CHALLENGES for answer in answers):
            return Fate.NONE
        refused = any(answer.refuses(CHECKED[sender.pbx]) for answer in answers)
        return Fate.MUST if request.clear and refused and _is_shown(sender, request.data) else Fate.MAY

    def _view(self, records: Sequence[Record]) -> View:
        """Return what is seen of the guard, without the senders that were judged.

        Nothing counts after a ban. So the number of a banned sender is raised to what must count.
        """
        with netns.inside(self.lab.network.pbx), closing(make_backend("ipset")) as backend:
            kernel = frozenset((format_network(one.network), str(one.scope)) for one in backend.list())
        listed = frozenset((row["address"], row["scope"]) for row in self.guard.bans())
        kernel, listed, store = map(self._of_new_senders, (kernel, listed, self._stored()))
        counted = {}
        for one in records:
            number = sum(
                attempt["trusted"] and attempt["kind"] not in _BY_BYTES
                for attempt in self.guard.ask("why", network=one.address)["attempts"]
            )
            counted[one.address] = max(number, one.least) if one.is_banned(kernel) else number
        return View(kernel, listed, store, listed, counted)

    def _of_new_senders(self, bans: Bans) -> Bans:
        return frozenset(ban for ban in bans if ban[0] not in self._earlier)

    def _stored(self) -> Bans:
        path = self.guard.folder / "ringfence.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT network, scope FROM bans WHERE ended IS NULL AND expires > ?", (time.time(),)
            ).fetchall()
        return frozenset((format_network(ip_network(network)), scope) for network, scope in rows)


def _sent(address: str, transport: str, number: int, credentials: str, exception: str = "") -> Sent:
    """Return a request as the judge knows it.

    Each sender has an account of its own there. If all had the same one, the judge would excuse bans by the
    rule `distributed`, which is off.
    """
    return Sent(
        time=_AT,
        sender=address,
        source=address,
        transport=_judged_transport(transport),
        dialogue=str(number),
        account=address,
        known=True,
        credentials=credentials,
        exception=exception,
        answered=address,
    )


def _judged_transport(transport: str) -> str:
    """Return a transport as the judge knows it: TLS, WebSocket and WSS are TCP."""
    return "UDP" if transport == "UDP" else "TCP"


def _is_shown(sender: Sender, data: bytes) -> bool:
    """Whether a guess is counted at once, and not by the bytes of its connection (docs/evidence.md).

    No event reports guesses at chan_sip by MESSAGE and SUBSCRIBE, and by TLS and WSS none by INVITE. By TCP
    and WebSocket only the wire shows these, if the connection has nothing that ringfence cannot read.
    """
    if sender.transport == "UDP":
        return True
    encrypted = sender.transport in _ENCRYPTED
    methods = (b"REGISTER ",) if encrypted else (b"REGISTER ", b"INVITE ")
    if sender.pbx == "16" and not data.startswith(methods):
        return False
    return not encrypted or _is_plain(data)


def _is_plain(data: bytes) -> bool:
    """Whether a request has nothing that keeps Asterisk from reporting it."""
    return len(data) < 1_500 and all(byte in b"\r\n\t" or 32 <= byte < 127 for byte in data)


@contextmanager
def game(
    release: str, folder: Path, seed: int, rules: Mapping[str, object] = RULES, *, prompt: bool = False
) -> Iterator[Game]:
    """Yield a game against a new Asterisk and a new daemon; ``prompt`` is as in :class:`Game`."""
    texts = {**open_pbx.configured(release), "hep.conf": open_pbx.EXPORT}
    with Lab.made(release, texts) as lab, watched(lab.network.pbx) as truth:
        settings = {"rules": rules, "claimed": {"per_minute": 100_000, "ban": ["2h"]}}
        with guarded_victims(lab, folder, settings) as (guard, known):
            truth.read()
            yield Game(lab, guard, truth, release, known, seed, prompt)
