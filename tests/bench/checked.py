"""The number of guesses whose password a real Asterisk checks, though the guesser reads no answer.

A limit of answers does not stop such a guesser: its Contact shows which guess was right
(:mod:`tests.support.checked` has the ways and the count). Each trial has a right password at a known number
among wrong ones. It must not register, and few may be checked before the ban.

ringfence reads all sources, and limiter and rations have their defaults. A row that measures one stranger
has the rules for one stranger alone; a row of many networks has those for networks and accounts too.

Each row of one stranger has six trials, each from its own network, half of them with each backend: with one
each process has its cores, with the other all share all. They share an Asterisk and a daemon, and each begins
a second after the last one, which then only waits for its ban. Fewer are the trials that use up what others
need: the claimed bans of a minute (after forged senders), and an account (many networks, each trial of which
has its own Asterisk and daemon).
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve
from tests.bench.figures import Figure, spread
from tests.bench.pace import slowness
from tests.bench.testbed import PLACED, Bed, bed, defended, only, peer_bed, until_defended
from tests.support import checked
from tests.support.checked import Checked, Trace, Trial, Way, traced
from tests.support.guarded import NO_LOGS
from tests.support.sip_raw import PORTS

TRIALS = 3
"""The trials with each backend."""
ALONE_TRIALS = 2
"""The same of the ways that are tried alone."""
NETWORK_TRIALS = 2
OTHERS_TRIALS = 2
BACKENDS = ("ipset", "nftables")
"""All share all cores with the second one."""
RIGHT_AT = (6, 40, 12, 25)
"""The number of the right guess, by turns: at the first one that may not be checked, and later."""
LATE = 40
MOST_AT_ONCE = 5
MOST_UNSEEN = 25
MOST_OUT_OF_STEP = 6
MOST_AFTER_FORGED = 10
"""A machine that is busy with forged packets reads the guesses some milliseconds later."""
MOST_OF_LOGINS = 30
MOST_OF_NETWORKS = 60
_HALF_PLACED = f"{PLACED}; with {BACKENDS[1]} all share all"
_APART = 1.1
"""Seconds between the begins of two trials: PJSIP gives all that ask in one second the same nonce."""
_ONE = only(guess={}, unexplained={})
_MANY = only(guess={}, unexplained={}, slow={}, prefix={}, distributed={})

AT_ONCE: Mapping[str, Way] = {
    **{f"at once, {name}": checked.pipelined(name) for name in checked.AT_ONCE},
    **{
        f"at once, {transport} over IPv6": checked.pipelined(transport, 6)
        for transport in ("UDP", "TCP", "TLS")
    },
    "one after the other, UDP": checked.one_by_one,
}
HIDDEN: Mapping[str, tuple[Way, int]] = {
    "hidden, TLS, closed window, 28 a second": (checked.unread("TLS"), MOST_UNSEEN),
    "hidden, TCP, behind a folded header, window filled": (checked.out_of_step("TCP"), MOST_OUT_OF_STEP),
    "hidden, WS, behind a fragmented frame, window filled": (checked.out_of_step("WS"), MOST_OUT_OF_STEP),
    "hidden, TLS, after a login with another account": (checked.as_friend("TLS"), MOST_UNSEEN),
    "hidden, TCP, after a login with another account": (checked.as_friend("TCP"), MOST_UNSEEN),
}
LOGINS: Mapping[str, tuple[Way, int]] = {
    "29 after a login at each of six addresses of a /64": (checked.new_friends(6, 6), MOST_OF_LOGINS),
    "29 after a login at each of five IPv4 addresses": (checked.new_friends(4, 5), MOST_OF_LOGINS),
}
ALONE: Mapping[str, Way] = {f"two Vias, after {checked.FORGED} forged senders": checked.after_forged}
NETWORKS: Mapping[str, Way] = {
    "4 from each of sixty addresses of a /24, two Vias": checked.rotating(checked.of_a_24, 4),
    "4 from each of forty /64s, two Vias": checked.rotating(checked.of_64s, 4),
    "4 from each of a hundred /48s of a /32": checked.rotating(checked.of_a_32, 4, checked.PLAIN),
}
_SCATTERED, _ONE_EACH = (
    "1 from each of 19 addresses of 24 /24s",
    checked.rotating(checked.of_24s, 1, checked.PLAIN),
)


@contextmanager
def _guarded(
    backend: str,
    rules: Mapping[str, object],
    *,
    release: str = "22",
    placed: bool = True,
    **sources: Any,  # noqa: ANN401 - whatever TOML holds
) -> Iterator[tuple[Bed, Trace]]:
    """Yield a bed with the default limiter and rations, and the trace of its Asterisk.

    ``sources`` are ringfence's tables of sources; by default it reads all.
    """
    asterisk: Mapping[str, Any] = {"release": release, "extra": checked.configured(release)}
    with (
        bed(rules, **asterisk, placed=placed, firewall=defended(backend), **sources) as here,
        traced(here.lab) as trace,
    ):
        until_defended(here.guard)
        checked.route(here.lab)
        yield here, trace


def _trial(here: Bed, trace: Trace, number: int, right_at: int, **more: Any) -> Trial:  # noqa: ANN401 - as above
    """Return a trial that is over when ringfence bans it, or when all its guesses were checked."""

    def is_over(address: str) -> bool:
        banned = map(ip_network, here.guard.banned())
        return trace.total(number) >= checked.MANY or any(ip_address(address) in one for one in banned)

    return Trial(here.lab, number, right_at, is_over, **more)


def _is_banned(here: Bed, trial: Trial) -> bool:
    """Whether an address of a trial is banned."""
    own = [ip_network(f"{trial.address(0)}/24"), ip_network(f"{trial.address(0, 6)}/48")]
    bans = [ip_network(network) for network in here.guard.banned()]
    return any(ban.version == one.version and one.overlaps(ban) for ban in bans for one in own)


def figures(root: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    theirs = _theirs(root) if root is not None else {}
    for name, found in _tried(AT_ONCE, RIGHT_AT).items():
        compared = f"fail2ban: {_text(theirs[name])}" if theirs else ""
        yield _row(name, [one for one, _ in found], MOST_AT_ONCE, compared)
    yield from _one_stranger()
    for name, way in NETWORKS.items():
        row = _row(f"at one account, {name}", _networks(way, MOST_OF_NETWORKS + 1), MOST_OF_NETWORKS)
        yield evolve(row, cores=PLACED)
    most = int(MOST_OF_NETWORKS * slowness())
    row = _row(f"at one account, {_SCATTERED}", _networks(_ONE_EACH, most + 1), most)
    why = f", {MOST_OF_NETWORKS} at pace 1: the first ban of a prefix length takes a run of nft"
    yield evolve(row, must=f"{row.must}{why}", cores=PLACED)


def _tried(
    ways: Mapping[str, Way],
    places: Sequence[int],
    *,
    trials: int = TRIALS,
    together: bool = True,
    ports: Mapping[str, int] = PORTS,
    **settings: Any,  # noqa: ANN401 - as above
) -> dict[str, list[tuple[Checked, bool]]]:
    """Try each way so often with each backend; return what was checked and whether a ban came.

    ``together``: all trials at a backend begin shortly after each other, else each one waits for the last
    one. The right password is at these ``places`` by turns.
    """
    found: dict[str, list[tuple[Checked, bool]]] = {}
    for turn, backend in enumerate(BACKENDS):
        with _guarded(backend, _ONE, placed=not turn, **settings) as (here, trace):
            numbers = count(1)
            attacks = [
                (name, way, _trial(here, trace, next(numbers), places[at % len(places)], ports=ports))
                for at in range(turn * trials, (turn + 1) * trials)
                for name, way in ways.items()
            ]
            for group in [attacks] if together else [[one] for one in attacks]:
                counted = trace.count(*((way, trial) for _, way, trial in group), apart=_APART)
                for (name, _, trial), one in zip(group, counted, strict=True):
                    found.setdefault(name, []).append((one, _is_banned(here, trial)))
    return found


def alone(_root: Path | None) -> Iterator[Figure]:
    """Measure the ways that keep a processor busy, which the other parts would disturb; yield the rows."""
    for name, found in _tried(ALONE, (LATE,), trials=ALONE_TRIALS, together=False).items():
        yield _row(name, [one for one, _ in found], MOST_AFTER_FORGED)


def _theirs(root: Path) -> dict[str, list[Checked]]:
    """Try the same against fail2ban; each trial waits until it has read its log."""
    found: dict[str, list[Checked]] = {name: [] for name in AT_ONCE}
    numbers = count(1)
    with peer_bed(root, extra=checked.configured()) as (lab, guard), traced(lab) as trace:
        checked.route(lab)
        for name, way in AT_ONCE.items():
            for _ in range(OTHERS_TRIALS):
                trial = Trial(lab, next(numbers), LATE, lambda address: address in guard.banned())
                found[name] += trace.count((way, trial))
                guard.settle()
    return found


def _one_stranger() -> Iterator[Figure]:
    """Try the ways of one stranger, and the hidden ones without the log and at Asterisk 16 too."""
    every = {name: way for name, (way, _) in {**HIDDEN, **LOGINS}.items()}
    found = _tried(every, (LATE,))
    yield from _hidden(found, "")
    for name, (_, most) in LOGINS.items():
        yield _row(name, [one for one, _ in found[name]], most)
    ways = {name: way for name, (way, _) in HIDDEN.items()}
    yield from _hidden(_tried(ways, (LATE,), logs=NO_LOGS), ", without the log")
    ways = {name: way for name, way in ways.items() if name.split(", ")[1] != "WS"}
    found = _tried(ways, (LATE,), release="16", ports=checked.PORTS_16)
    yield from _hidden(found, ", PJSIP of Asterisk 16")


def _hidden(tried: Mapping[str, Sequence[tuple[Checked, bool]]], where: str) -> Iterator[Figure]:
    """Yield the rows of the hidden ways, whose trials end with a ban."""
    for name in [name for name in HIDDEN if name in tried]:
        row = _row(name, [one for one, _ in tried[name]], HIDDEN[name][1])
        free = sum(not banned for _, banned in tried[name])
        yield evolve(
            row,
            what=f"guesses checked, no answer needed; the right one registered; not banned: {name}{where}",
            measured=f"{row.measured}; {free}",
            must=f"{row.must}; 0",
            reached=row.reached and not free,
        )


def _networks(way: Way, right_at: int) -> list[Checked]:
    """Try one of the ways of many networks; a ban may cover a wide one, so each trial has its own bed."""
    found: list[Checked] = []
    for _ in range(NETWORK_TRIALS):
        with _guarded("nftables", _MANY) as (here, trace):
            found += trace.count((way, _trial(here, trace, 1, right_at)))
    return found


def _row(how: str, found: Sequence[Checked], most: int, compared: str = "") -> Figure:
    """Return the row of one way.

    In a trial, Asterisk may check no guess: the copied ones count before it has read them, and the ban then
    ends their connection. But if it checks none in half of the trials, the row tests nothing.
    """
    checks = statistics.median(one.number for one in found) >= 1
    return Figure(
        what=f"guesses checked, no answer needed; the right one registered: {how}",
        measured=_text(found),
        must=f"≤ {most} in every trial, median 1 or more; never",
        reached=checks and all(one.number <= most and not one.registered for one in found),
        compared=compared,
        cores=_HALF_PLACED,
    )


def _text(found: Sequence[Checked]) -> str:
    registered = sum(one.registered > 0 for one in found)
    return f"{spread([one.number for one in found])}; {registered} of {len(found)}"
