"""The number of answers to guesses that some sources do not report, or that come from a friend's network.

- Guesses from many addresses of a /64 that contains a friend.
- Hidden guesses: their Call-ID is not UTF-8, so that Asterisk writes no security event about them.
- Guesses at chan_sip, by each method and transport.

ringfence reads all sources. Each row has its own Asterisk and daemon, and each trial its own network.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen
from tests.bench.attacks import PAUSE, THRESHOLD
from tests.bench.figures import Figure, spread
from tests.bench.testbed import GUESS, PLACED, Bed, bed, in_prefix, only, route_prefixes
from tests.support import open_pbx
from tests.support.daemon import until
from tests.support.lab import Lab
from tests.support.sip_raw import Raw, calling, guesses, request_of, rotation

TRIALS = 10
MANY = 300
"""The number of guesses that would be answered in a trial without a guard."""
NEIGHBOURS = 3_000
NEIGHBOUR_TRIALS = 3
ROTATIONS = 5
MOST_OF_ROTATION = 25
HIDDEN = Raw(call_id=b"\xff{}")
_ONE_BY_ONE = 40
"""The number of neighbours that guess one after another; the others guess when the ban must be enforced."""
_TO_IPV6 = ("--target", "[fd00:18::1]:5060")
_BANNED_WITHIN = 5.0  # seconds

CHAN_SIP = (
    *((b"REGISTER", transport) for transport in ("UDP", "TCP", "WS")),
    *((b"INVITE", transport) for transport in ("UDP", "TCP", "WS")),
    (b"SUBSCRIBE", "UDP"),
    (b"MESSAGE", "UDP"),
)

Trial = Callable[[Lab, str], int]
"""One attack from an address; returns the number of answered guesses."""


@frozen
class Outcome:
    """The number of answered guesses of each trial, and the scope of its sender's ban (empty: no ban)."""

    answered: tuple[int, ...]
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        others = sorted({scope or "none" for scope in self.scopes if scope != "full"})
        more = f" (else {', '.join(others)})" if others else ""
        return f"{spread(self.answered)}; {self.scopes.count('full')} full bans{more}"


def tried(release: str, trial: Trial) -> Outcome:
    """Run the attack several times, each from its own network."""
    senders = [f"198.19.{number}.9" for number in range(1, TRIALS + 1)]
    with bed(GUESS, release=release, extra=open_pbx.configured(release)) as here:
        answered = tuple(trial(here.lab, sender) for sender in senders)
        time.sleep(_BANNED_WITHIN)
        scopes = {row["address"]: row["scope"] for row in here.guard.bans()}
    return Outcome(answered, tuple(scopes.get(sender, "") for sender in senders))


def hidden(transport: str) -> Trial:
    """Return an attack of one hidden guess, a closed connection, and hidden guesses on another one."""

    def trial(lab: Lab, sender: str) -> int:
        answered = 0
        for most in (1, MANY):
            with calling(lab, sender, transport) as caller:
                answered += len(guesses(caller, HIDDEN, most, pause=PAUSE))
        return answered

    return trial


def at_chan_sip(method: bytes, transport: str) -> Trial:
    """Return an attack of guesses at chan_sip on one connection."""

    def trial(lab: Lab, sender: str) -> int:
        with calling(lab, sender, transport) as caller:
            return len(guesses(caller, request_of(method, b"carol"), MANY, pause=PAUSE))

    return trial


def neighbours() -> list[int]:
    """Guess once from each neighbour of a friend; return the number of answers of each trial."""
    found = []
    with bed(GUESS) as here:
        route_prefixes(here.lab)
        for number in range(1, NEIGHBOUR_TRIALS + 1):
            _befriend(here, in_prefix(number, "4:1"))
            first = _each_once(here.lab, number, 1, _ONE_BY_ONE, abreast=1)
            found.append(first + _each_once(here.lab, number, _ONE_BY_ONE + 1, NEIGHBOURS, abreast=50))
    return found


def _befriend(here: Bed, address: str) -> None:
    registered = here.lab.attack("register", *_TO_IPV6, "--sources", address)
    if registered.statuses != {"200": 1}:
        raise RuntimeError(f"{address} could not register: {registered.statuses}")
    until(lambda: address in {row["address"] for row in here.guard.ask("friends")}, f"{address} as a friend")


def _each_once(lab: Lab, prefix: int, first: int, last: int, abreast: int) -> int:
    """Guess once from each neighbour, ``abreast`` at a time; return the number of answers."""
    sources = f"{in_prefix(prefix, f'5:{first:x}')}-{in_prefix(prefix, f'5:{last:x}')}"
    return lab.attack(
        *("guess", *_TO_IPV6, "--number", "1", "--timeout", "0.3"),
        *("--parallel", str(abreast), "--sources", sources),
    ).answered


def rotations() -> list[int]:
    """Make four hidden guesses from each of forty addresses of a /24; return the answers of each trial."""
    with bed(only(guess={}, prefix={})) as here:
        return [rotation(here.lab, f"198.19.{number}.", HIDDEN, PAUSE) for number in range(1, ROTATIONS + 1)]


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    yield _answered(
        f"answers to {NEIGHBOURS} neighbours of a friend in its /64, one guess each",
        neighbours(),
        THRESHOLD + 1,
    )
    for transport in ("UDP", "TCP", "TLS", "WS"):
        yield _stopped(
            f"hidden guesses answered, one hang-up first: PJSIP of Asterisk 22, {transport}",
            tried("22", hidden(transport)),
        )
    yield _answered(
        "hidden guesses answered to a rotation over 40 addresses of a /24: UDP", rotations(), MOST_OF_ROTATION
    )
    for method, transport in CHAN_SIP:
        yield _stopped(
            f"guesses answered: chan_sip of Asterisk 16, {method.decode()} by {transport}",
            tried("16", at_chan_sip(method, transport)),
        )


def _answered(what: str, found: Sequence[int], most: int) -> Figure:
    return Figure(
        what=f"{what}: all sources",
        measured=spread(found),
        must=f"≤ {most} in every trial",
        reached=max(found) <= most,
        cores=PLACED,
    )


def _stopped(what: str, found: Outcome) -> Figure:
    return Figure(
        what=f"{what}, all sources",
        measured=str(found),
        must=f"≤ {THRESHOLD + 1} and a full ban in every trial",
        reached=max(found.answered) <= THRESHOLD + 1 and set(found.scopes) == {"full"},
        cores=PLACED,
    )
