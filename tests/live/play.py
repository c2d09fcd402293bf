"""Rounds of random SIP from many senders to a real Asterisk, each judged against what Asterisk truly did.

In a round, each sender asks and guesses a few times by a transport of its own. When all is quiet, the judge
(:mod:`tests.judge.oracle`) compares the attempts and bans of the daemon with the truth
(:mod:`tests.live.truth`). A clear guess that Asterisk refused must count. Any other request may count.
"""

import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

from attrs import define, field, frozen
from tests.judge.oracle import GUESSES, Bans, Judge, Sent, View, Violation
from tests.live.requests import Request, changed, guess, plain
from tests.live.truth import Truth, watched
from tests.support import netns, open_pbx
from tests.support.daemon import Guard
from tests.support.hostile_run import FRIEND, PORTS, guarded_victims, senders
from tests.support.hostile_text import ACCOUNTS, TRANSPORTS, Victim, strangers
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_streams import open_wire
from tests.support.sip_wire import Wire, challenge_of, status_of

from ringfence.firewall import make_backend
from ringfence.values.network import format_network

PBXS: Mapping[str, Sequence[str]] = {"22": ("22",), "16": ("16", "16-pjsip")}
"""The kinds of PBX in each release of Asterisk."""
IN_A_ROUND = 48
AT_ONCE = 12
"""The senders that send at the same time: more would keep the daemon behind on two processors."""
EXCHANGES = 2 * GUESSES
"""Questions of each sender; a guess or two follow each challenge."""
QUIET = 10.0
"""Seconds after a round, in which hidden attempts are counted, and all bans become equal everywhere."""
_PATIENCE = 0.25
_LAG = 0.06
"""Seconds between two guesses, in which the daemon reads the reports."""
_AT = 0.0
"""The time of each request for the judge: a round is shorter than the window of `guess`."""
_REFUSALS = frozenset({401, 403, 407})
_CHECKED = {"16": frozenset({403})}
"""The statuses that show that a password was checked. chan_sip also challenges without a check."""
_BY_BYTES = frozenset({"unexplained"})
"""The kinds of attempts that ringfence counts by bytes that it cannot read, in whatever pieces they come."""
RULES: dict[str, dict[str, object]] = {
    "enumeration": {"enabled": False},
    "slow": {"enabled": False},
    "prefix": {"enabled": False},
    "distributed": {"enabled": False},
}
"""The rules that are off: all senders are neighbours, and try one account."""


@define
class Sender:
    """One attacker: its address, its way to a PBX, the host that its text names, and its requests."""

    address: str
    pbx: str
    transport: str
    victim: Victim
    seed: str
    first: int
    requests: list[Request] = field(factory=list)
    received: list[bytes] = field(factory=list)

    def play(self, lab: Lab) -> None:
        """Ask and guess several times."""
        chosen = random.Random(self.seed)  # noqa: S311 - no secret
        with netns.inside(lab.network.attacker), suppress(OSError), closing(self._open()) as wire:
            for _ in range(EXCHANGES):
                self._exchange(wire, chosen)
                time.sleep(_LAG)

    def _open(self) -> Wire:
        return open_wire(self.transport, (PBX_IPV4, PORTS[f"{self.pbx} {self.transport}"]), self.address, 1.0)

    def _exchange(self, wire: Wire, chosen: random.Random) -> None:
        where = wire.contact, self.transport
        raw = plain(chosen, ACCOUNTS[self.pbx], self._mark())
        most = chosen.choice((0, 0, 1))
        question = changed(chosen, raw, where, self._mark(), self.victim, most)
        challenge = challenge_of(self._ask(wire, question) or b"")
        if challenge is None:
            return
        for more in range(chosen.choice((1, 1, 2))):
            guessed = guess(raw, challenge, more)
            self._ask(wire, changed(chosen, guessed, where, self._mark(), self.victim, 3))

    def _mark(self) -> int:
        return self.first + len(self.requests)

    def _ask(self, wire: Wire, request: Request) -> bytes | None:
        """Send a request, and return the final answer; None if none comes."""
        self.requests.append(request)
        wire.send(request.data)
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            message = wire.receive(left)
            if message is None:
                return None
            self.received.append(message)
            if status_of(message) >= 200:
                return message
        return None


@frozen
class Round:
    """The result of a round: its senders, the violations, and how many guesses were clear and refused."""

    senders: Sequence[Sender]
    violations: Sequence[Violation]
    refused: int
    banned: int


@define
class Game:
    """Rounds against one Asterisk and one daemon."""

    lab: Lab
    guard: Guard
    truth: Truth
    release: str
    known: Sequence[Victim]
    seed: int
    _addresses: Iterator[str] = field(factory=senders)
    _victims: Iterator[Victim] = field(factory=strangers)
    _mark: int = 1_000
    _judged: set[str] = field(factory=set)
    """The addresses of the senders of earlier rounds."""

    def play(self, number: int) -> Round:
        """Play a round, and judge it."""
        chosen = random.Random(f"{self.seed} {number}")  # noqa: S311 - no secret
        made = [self._sender(chosen, f"{self.seed} {number} {at}") for at in range(IN_A_ROUND)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: one.play(self.lab), made))
        time.sleep(QUIET)
        self.truth.read()
        for one in made:
            for message in one.received:
                self.truth.add(message)
        judge, must = self._judge(made)
        view = self._view(must)
        self._judged.update(must)
        banned = sum(any(_inside(one.address, ban) for ban, _ in view.kernel) for one in made)
        violations = judge.check(view, _AT, quiet=True)
        return Round(made, violations, sum(must.values()), banned)

    def _sender(self, chosen: random.Random, seed: str) -> Sender:
        pbx = chosen.choice(PBXS[self.release])
        victim = chosen.choice((*self.known, next(self._victims), next(self._victims)))
        self._mark += 1_000
        transport = chosen.choice(TRANSPORTS[pbx])
        return Sender(next(self._addresses), pbx, transport, victim, seed, self._mark)

    def _judge(self, made: Sequence[Sender]) -> tuple[Judge, Mapping[str, int]]:
        """Return a judge who knows what the senders did, and how many of each one's requests must count."""
        judge = Judge([open_pbx.TRUNK], sees_all=False)
        judge.sent(_sent(FRIEND, "UDP", 0, "right"))
        must = dict.fromkeys((one.address for one in made), 0)
        for one in made:
            for request in one.requests:
                counts = self._must_count(one, request)
                must[one.address] += counts
                exception = "" if counts else "question"
                judge.sent(_sent(one.address, one.transport, request.mark, "wrong", exception))
        return judge, must

    def _must_count(self, sender: Sender, request: Request) -> bool:
        """Whether Asterisk has surely checked a wrong password, by a way on which ringfence sees it."""
        checked = _CHECKED.get(sender.pbx, _REFUSALS)
        refused = any(
            answer.status in checked and not answer.stale
            for answer in self.truth.answers.get(request.mark, ())
        )
        # docs/evidence.md: by TLS, only the number and sizes of records show what no event reports.
        hidden = sender.transport == "TLS" and not _is_plain(request.data)
        return request.clear and refused and not hidden

    def _view(self, must: Mapping[str, int]) -> View:
        """Return what is seen of the guard, without the senders of earlier rounds.

        What comes after a ban is not counted, so a banned sender has at least as many attempts as it must.
        """
        with netns.inside(self.lab.network.pbx), closing(make_backend("ipset")) as backend:
            kernel = frozenset((format_network(one.network), str(one.scope)) for one in backend.list())
        listed = frozenset((row["address"], row["scope"]) for row in self.guard.bans())
        kernel, listed, store = map(self._of_this_round, (kernel, listed, self._stored()))
        counted = {}
        for address, least in must.items():
            number = sum(
                attempt["trusted"] and attempt["kind"] not in _BY_BYTES
                for attempt in self.guard.ask("why", network=address)["attempts"]
            )
            banned = any(_inside(address, ban) for ban, _ in kernel)
            counted[address] = max(number, least) if banned else number
        return View(kernel, listed, store, listed, counted)

    def _of_this_round(self, bans: Bans) -> Bans:
        return frozenset(ban for ban in bans if not any(_inside(one, ban[0]) for one in self._judged))

    def _stored(self) -> Bans:
        path = self.guard.folder / "ringfence.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT network, scope FROM bans WHERE ended IS NULL AND expires > ?", (time.time(),)
            ).fetchall()
        return frozenset((format_network(ip_network(network)), scope) for network, scope in rows)


def _sent(address: str, transport: str, mark: int, credentials: str, exception: str = "") -> Sent:
    return Sent(
        time=_AT,
        sender=address,
        source=address,
        transport="UDP" if transport == "UDP" else "TCP",
        dialogue=str(mark),
        account="alice",
        known=True,
        credentials=credentials,
        exception=exception,
        answered=address,
    )


def _is_plain(data: bytes) -> bool:
    """Whether a request has nothing that keeps Asterisk from reporting it."""
    return len(data) < 1_500 and all(byte in b"\r\n\t" or 32 <= byte < 127 for byte in data)


def _inside(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)


@contextmanager
def game(release: str, folder: Path, seed: int) -> Iterator[Game]:
    """Yield a game against a new Asterisk and a new daemon."""
    texts = {**open_pbx.configured(release), "hep.conf": open_pbx.EXPORT}
    with Lab.made(release, texts) as lab, watched(lab) as truth:
        settings = {"rules": RULES, "claimed": {"per_minute": 100_000, "ban": ["2h"]}}
        with guarded_victims(lab, folder, settings) as (guard, known):
            truth.read()
            yield Game(lab, guard, truth, release, known, seed)
