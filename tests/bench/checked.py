"""The number of guesses whose password a real Asterisk checks, though the guesser reads no answer.

A limit of answers does not stop such a guesser: its Contact shows which guess was right
(:mod:`tests.support.checked` has the ways and the count). Each trial has a right password at a known number
among wrong ones. It must not register, and few may be checked before the ban.

ringfence reads all sources, and limiter and rations have their defaults. A row that measures one stranger
has the rules for one stranger alone; a row of many networks has those for networks and accounts too. Trials
of hidden ways run at the same time, each from its own network.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve
from tests.bench.figures import Figure, spread
from tests.bench.testbed import PLACED, Bed, bed, defended, only, peer_bed, until_defended
from tests.support import checked
from tests.support.checked import Checked, Trace, Trial, Way, traced
from tests.support.guarded import NO_LOGS

TRIALS = 3
AT_ONCE_TRIALS = 2
"""The trials with each backend of the ways that nothing hides."""
NETWORK_TRIALS = 2
OTHERS_TRIALS = 2
BACKENDS = ("ipset", "nftables")
RIGHT_AT = (6, 40, 12, 25)
"""The number of the right guess, by turns: at the first one that may not be checked, and later."""
LATE = 40
MOST_AT_ONCE = 5
MOST_UNSEEN = 25
MOST_OUT_OF_STEP = 6
MOST_OF_LOGINS = 30
MOST_OF_NETWORKS = 60
_HALF_PLACED = f"{PLACED}; with {BACKENDS[1]} all share all"
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
ALONE: Mapping[str, tuple[Way, int]] = {
    "29 after a login at each of six addresses of a /64": (checked.new_friends(6, 6), MOST_OF_LOGINS),
    "29 after a login at each of five IPv4 addresses": (checked.new_friends(4, 5), MOST_OF_LOGINS),
    f"two Vias, after {checked.FORGED} forged senders": (checked.after_forged, MOST_OUT_OF_STEP),
}
NETWORKS: Mapping[str, Way] = {
    "4 from each of sixty addresses of a /24, two Vias": checked.rotating(checked.of_a_24, 4),
    "4 from each of forty /64s, two Vias": checked.rotating(checked.of_64s, 4),
    "4 from each of a hundred /48s of a /32": checked.rotating(checked.of_a_32, 4, checked.PLAIN),
    "1 from each of 19 addresses of 24 /24s": checked.rotating(checked.of_24s, 1, checked.PLAIN),
}


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
    ours = [_at_once(backend, turn) for turn, backend in enumerate(BACKENDS)]
    theirs = _theirs(root) if root is not None else {}
    for name in AT_ONCE:
        compared = f"fail2ban: {_text(theirs[name])}" if theirs else ""
        found = [one for of in ours for one in of[name]]
        yield evolve(_row(name, found, MOST_AT_ONCE, compared), cores=_HALF_PLACED)
    yield from _one_stranger()
    for name, way in NETWORKS.items():
        yield _row(f"at one account, {name}", _networks(way), MOST_OF_NETWORKS)


def _at_once(backend: str, turn: int = 0) -> dict[str, list[Checked]]:
    """Try the ways that send everything at once, one trial after the other.

    With the second backend all processes share all cores.
    """
    found: dict[str, list[Checked]] = {name: [] for name in AT_ONCE}
    numbers = count(1)
    with _guarded(backend, _ONE, placed=not turn) as (here, trace):
        for name, way in AT_ONCE.items():
            for number in range(AT_ONCE_TRIALS):
                right_at = RIGHT_AT[(turn * AT_ONCE_TRIALS + number) % len(RIGHT_AT)]
                trial = _trial(here, trace, next(numbers), right_at)
                found[name] += trace.count((way, trial))
    return found


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
    with _guarded("nftables", _ONE) as (here, trace):
        trials = (_trial(here, trace, number, LATE) for number in count(1))
        yield from _hidden(here, trace, trials)
        for name, (way, most) in ALONE.items():
            yield _row(name, [one for _ in range(TRIALS) for one in trace.count((way, next(trials)))], most)
    with _guarded("nftables", _ONE, logs=NO_LOGS) as (here, trace):
        trials = (_trial(here, trace, number, LATE) for number in count(1))
        for row in _hidden(here, trace, trials, most=MOST_UNSEEN):
            yield evolve(row, what=f"{row.what}, without the log")
    with _guarded("ipset", _ONE, release="16") as (here, trace):
        trials = (_trial(here, trace, number, LATE, ports=checked.PORTS_16) for number in count(1))
        for row in _hidden(here, trace, trials, transports=("TLS", "TCP")):
            yield evolve(row, what=f"{row.what}, PJSIP of Asterisk 16")


def _hidden(
    here: Bed,
    trace: Trace,
    trials: Iterator[Trial],
    *,
    most: int = 0,
    transports: Sequence[str] = ("TLS", "TCP", "WS"),
) -> Iterator[Figure]:
    """Try all hidden ways by these transports at the same time; each trial must end with a ban.

    ``most`` replaces the limits of the ways.
    """
    ways = {name: row for name, row in HIDDEN.items() if name.split(", ")[1] in transports}
    attacks = [(way, next(trials)) for way, _ in ways.values() for _ in range(TRIALS)]
    found = trace.count(*attacks)
    free = [not _is_banned(here, trial) for _, trial in attacks]
    for at, (name, (_, limit)) in enumerate(ways.items()):
        part = slice(at * TRIALS, (at + 1) * TRIALS)
        row = _row(name, found[part], most or limit)
        yield evolve(
            row,
            what=f"guesses checked, no answer needed; the right one registered; not banned: {name}",
            measured=f"{row.measured}; {sum(free[part])}",
            must=f"{row.must}; 0",
            reached=row.reached and not any(free[part]),
        )


def _networks(way: Way) -> list[Checked]:
    """Try one of the ways of many networks; a ban may cover a wide one, so each trial has its own bed."""
    found: list[Checked] = []
    for _ in range(NETWORK_TRIALS):
        with _guarded("nftables", _MANY) as (here, trace):
            found += trace.count((way, _trial(here, trace, 1, MOST_OF_NETWORKS + 1)))
    return found


def _row(how: str, found: Sequence[Checked], most: int, compared: str = "") -> Figure:
    return Figure(
        what=f"guesses checked, no answer needed; the right one registered: {how}",
        measured=_text(found),
        must=f"≤ {most} in every trial; never",
        reached=max(one.number for one in found) <= most and not any(one.registered for one in found),
        compared=compared,
        cores=PLACED,
    )


def _text(found: Sequence[Checked]) -> str:
    registered = sum(one.registered > 0 for one in found)
    return f"{spread([one.number for one in found])}; {registered} of {len(found)}"
