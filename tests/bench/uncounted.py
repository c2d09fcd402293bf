"""The number of answers to guesses that some sources do not report, or that come from a friend's network.

- Guesses from many addresses of a /64 that contains a friend.
- Hidden guesses: their Call-ID is not UTF-8, so that Asterisk writes no security event about them.
- Hidden guesses by TLS and WSS without a log, which only the records of their answers show, on one connection
  and on many; and those that Asterisk exports.
- Guesses at chan_sip, by each method and transport, also with a nonce that it never sent.
- Guesses with two Authorization headers, of which the first hides the second from Asterisk's events.
- Guesses whose answers go nowhere.

ringfence reads all sources, unless a row names others. Each trial has its own network. Rows with the same
Asterisk, sources and rules share an Asterisk and a daemon, and their trials run one after the other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.bench.attacks import PAUSE, THRESHOLD
from tests.bench.figures import Figure, spread, unrationed
from tests.bench.testbed import GUESS, PLACED, Bed, bed, in_prefix, only, route_prefixes
from tests.support import open_pbx, uncounted
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS
from tests.support.lab import Lab
from tests.support.sip_raw import (
    GARBAGE,
    NOWHERE,
    OTHER_REALM,
    Digest,
    Raw,
    calling,
    guesses,
    on_new_connections,
    request_of,
    rotation,
)
from tests.support.sip_streams import LONGER

TRIALS = 4
UNREAD_TRIALS = 3
EXPORTED_TRIALS = 3
MANY = 300
"""The number of guesses that would be answered in a trial without a guard."""
NEIGHBOURS = 3_000
NEIGHBOUR_TRIALS = 2
ROTATIONS = 3
MOST_OF_ROTATION = 25
MOST_UNREAD = 25
_MOST_OF_FRIEND = 40
"""A friend may fail 30 times within ten minutes; some answers more leave before the ban."""
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

FIRST_HEADERS = {"of another realm": OTHER_REALM, "of garbage": GARBAGE}
INVENTED = (
    *((b"REGISTER", transport) for transport in ("UDP", "TCP", "WS")),
    *((b"MESSAGE", transport) for transport in ("UDP", "TCP", "WS")),
)
_MOST_BLIND = 60
"""The greatest number of guesses without an answer in a trial, and of its seconds."""

Trial = Callable[[Lab, str], int]
"""One attack from an address; returns the number of answered guesses."""


@frozen
class Outcome:
    """The number of answered guesses of each trial, and the scope of its sender's ban (empty: no ban)."""

    answered: tuple[int, ...]
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        others = sorted({scope or "none" for scope in self.scopes if scope != "sip"})
        more = f" (else {', '.join(others)})" if others else ""
        return f"{spread(self.answered)}; {self.scopes.count('sip')} bans of SIP{more}"


def tried(
    release: str,
    ways: Mapping[str, Trial],
    rules: Mapping[str, object] = GUESS,
    trials: int = TRIALS,
    asterisk: Mapping[str, str] | None = None,
    **settings: Any,  # noqa: ANN401 - whatever TOML holds
) -> dict[str, Outcome]:
    """Run each attack several times, each time from its own network.

    ``asterisk`` is its configuration, ``settings`` are tables of ringfence.
    """
    extra = open_pbx.configured(release) if asterisk is None else asterisk
    found, networks = {}, count(1)
    with bed(rules, release=release, extra=extra, **settings) as here:
        for name, trial in ways.items():
            senders = [f"198.19.{next(networks)}.9" for _ in range(trials)]
            answered = tuple(trial(here.lab, sender) for sender in senders)
            found[name] = Outcome(answered, _scopes(here, senders))
    return found


def _scopes(here: Bed, senders: Sequence[str]) -> tuple[str, ...]:
    """Return the scope of each sender's ban, which may come a little later."""
    end, scopes = time.monotonic() + _BANNED_WITHIN, dict[str, str]()
    while not scopes.keys() >= {*senders} and time.monotonic() < end:
        scopes = {row["address"]: row["scope"] for row in here.guard.bans()}
        time.sleep(0.1)
    return tuple(scopes.get(sender, "") for sender in senders)


def hidden(transport: str, protocol: str = "sip") -> Trial:
    """Return an attack of one hidden guess, a closed connection, and hidden guesses on another one.

    ``protocol`` is what a WebSocket asks for.
    """

    def trial(lab: Lab, sender: str) -> int:
        answered = 0
        for most in (1, MANY):
            with calling(lab, sender, transport, protocol=protocol) as caller:
                answered += len(guesses(caller, HIDDEN, most, pause=PAUSE))
        return answered

    return trial


def hurried(transport: str) -> Trial:
    """Return an attack of hidden guesses at full speed, each on a new connection."""
    return lambda lab, sender: on_new_connections(lab, sender, transport, HIDDEN, MANY)


def at_chan_sip(method: bytes, transport: str) -> Trial:
    """Return an attack of guesses at chan_sip on one connection."""

    def trial(lab: Lab, sender: str) -> int:
        with calling(lab, sender, transport) as caller:
            return len(guesses(caller, request_of(method, b"carol"), MANY, pause=PAUSE))

    return trial


def two_headers(before: bytes) -> Trial:
    """Return an attack of guesses behind another Authorization header, with a Call-ID of 512 bytes."""
    request = Raw(call_id=b"x" * 496 + b"{}", digest=Digest(before=before))

    def trial(lab: Lab, sender: str) -> int:
        with calling(lab, sender) as caller:
            return len(guesses(caller, request, MANY, pause=PAUSE))

    return trial


def with_invented_nonce(method: bytes, transport: str) -> Trial:
    """Return an attack of guesses at chan_sip with a nonce of its own, and a From that is no UTF-8."""
    return lambda lab, sender: uncounted.with_invented_nonce(
        lab, sender, MANY, method, transport, pause=PAUSE
    )


def blind(call_id: bytes) -> Trial:
    """Return an attack of guesses whose answers go nowhere; it returns how many reached Asterisk."""

    def trial(lab: Lab, sender: str) -> int:
        sent, end = 0, time.monotonic() + _MOST_BLIND
        with calling(lab, sender) as caller:
            while sent < _MOST_BLIND and time.monotonic() < end:
                challenge = caller.challenged(Raw(from_user=b"alice"))
                if challenge is None:
                    break  # the ban
                request = Raw(call_id=call_id, from_user=b"alice", via=NOWHERE, cseq=sent + 5)
                caller.send(request.answering(challenge, f"wrong-{sent}"))
                sent += 1
                time.sleep(1.0)
        return sent

    return trial


def neighbours(account: str) -> list[int]:
    """Guess once from each neighbour of a friend, at ``account``; return the answers of each trial."""
    found = []
    with bed(GUESS) as here:
        route_prefixes(here.lab)
        for number in range(1, NEIGHBOUR_TRIALS + 1):
            _befriend(here, in_prefix(number, "4:1"))
            first = _each_once(here.lab, number, account, (1, _ONE_BY_ONE), abreast=1)
            others = _each_once(here.lab, number, account, (_ONE_BY_ONE + 1, NEIGHBOURS), abreast=50)
            found.append(first + others)
    return found


def _befriend(here: Bed, address: str) -> None:
    registered = here.lab.attack("register", *_TO_IPV6, "--sources", address)
    if registered.statuses != {"200": 1}:
        raise RuntimeError(f"{address} could not register: {registered.statuses}")
    until(lambda: address in {row["address"] for row in here.guard.ask("friends")}, f"{address} as a friend")


def _each_once(lab: Lab, prefix: int, account: str, hosts: tuple[int, int], abreast: int) -> int:
    """Guess once from each neighbour, ``abreast`` at a time; return the number of answers."""
    sources = "-".join(in_prefix(prefix, f"5:{host:x}") for host in hosts)
    return lab.attack(
        *("guess", *_TO_IPV6, "--number", "1", "--timeout", "0.3", "--account", account),
        *("--parallel", str(abreast), "--sources", sources),
    ).answered


def rotations() -> list[int]:
    """Make four hidden guesses from each of forty addresses of a /24; return the answers of each trial."""
    with bed(only(guess={}, prefix={})) as here:
        return [rotation(here.lab, f"198.19.{number}.", HIDDEN, PAUSE) for number in range(1, ROTATIONS + 1)]


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    for account, whose, most in (
        ("bob", "another account", THRESHOLD + 1),
        ("alice", "the friend's account, with a friend's limit", _MOST_OF_FRIEND),
    ):
        yield _answered(
            f"answers to {NEIGHBOURS} neighbours of a friend in its /64, one guess each at {whose}",
            neighbours(account),
            most,
        )
    yield from _hidden_rows()
    yield from _chan_sip_rows()
    ways = {
        f"guesses answered, with a Call-ID of 512 bytes behind an Authorization header {which}": two_headers(
            before
        )
        for which, before in FIRST_HEADERS.items()
    }
    for how, call_id in (("reported", b"{}"), ("hidden", b"\xff{}")):
        ways[f"guesses at Asterisk whose answers go nowhere, one a second, {how}"] = blind(call_id)
    for what, outcome in tried("22", ways).items():
        yield _stopped(what, outcome)


def _hidden_rows() -> Iterator[Figure]:
    """Yield the rows of hidden guesses, with all sources and without a log."""
    what = "hidden guesses answered, one hang-up first: PJSIP of Asterisk 22"
    ways = {f"{what}, {transport}": hidden(transport) for transport in ("UDP", "TCP", "TLS", "WS")}
    for name, outcome in tried("22", ways).items():
        yield _stopped(name, outcome)
    what = "hidden guesses answered, without a log"
    ways = {f"{what}, after a longer answer to a WebSocket: WSS": hidden("WSS", LONGER)}
    exported = {}
    for transport in ("TLS", "WSS"):
        ways[f"{what}: PJSIP of Asterisk 22, {transport}"] = hidden(transport)
        ways[f"{what}, a new connection for each at full speed: {transport}"] = hurried(transport)
        exported[f"{what}: PJSIP of Asterisk 22, {transport}"] = hidden(transport)
    for name, outcome in tried("22", ways, only(unexplained={}), UNREAD_TRIALS, logs=NO_LOGS).items():
        yield _stopped(name, outcome, most=MOST_UNREAD, scope="sip-tcp", sources="AMI and the wire")
    hep: Mapping[str, Any] = {"logs": NO_LOGS, "hep": {"enabled": True}}
    exporting = open_pbx.exporting("22")
    for name, outcome in tried("22", exported, GUESS, EXPORTED_TRIALS, exporting, **hep).items():
        yield _stopped(name, outcome, sources="AMI, the wire and Asterisk's export")
    yield _answered(
        "hidden guesses answered to a rotation over 40 addresses of a /24: UDP", rotations(), MOST_OF_ROTATION
    )


def _chan_sip_rows() -> Iterator[Figure]:
    """Yield the rows of guesses at chan_sip."""
    ways = {
        f"guesses answered: chan_sip of Asterisk 16, {method.decode()} by {transport}": at_chan_sip(
            method, transport
        )
        for method, transport in CHAN_SIP
    }
    for name, outcome in tried("16", ways).items():
        yield _stopped(name, outcome)
    ways = {
        f"guesses answered, with an invented nonce: chan_sip, {method.decode()} by {transport}": (
            with_invented_nonce(method, transport)
        )
        for method, transport in INVENTED
    }
    for name, outcome in tried("16", ways).items():
        # No nonce comes back that could prove the sender of a datagram.
        yield _stopped(name, outcome, scope="sip-udp" if name.endswith("UDP") else "sip")


def _answered(what: str, found: Sequence[int], most: int) -> Figure:
    must, reached = unrationed(found, most)
    return Figure(
        what=f"{what}: all sources",
        measured=spread(found),
        must=must,
        reached=reached,
        cores=PLACED,
    )


def _stopped(
    what: str,
    found: Outcome,
    *,
    most: int = THRESHOLD + 1,
    scope: str = "sip",
    sources: str = "all sources",
) -> Figure:
    must, reached = unrationed(found.answered, most)
    return Figure(
        what=f"{what}, {sources}",
        measured=str(found),
        must=f"{must}, and a {scope} ban in every trial",
        reached=reached and set(found.scopes) == {scope},
        cores=PLACED,
    )
