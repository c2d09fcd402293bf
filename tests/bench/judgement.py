"""The cost of judging, and whether it bans a wrong address: with every rule on and friends known.

- From the bytes of AMI to decisions, compared with panoramisk's parsing of the same packets alone.
- A million addresses with one attempt each, which a real daemon reads over AMI.
- Every recording, with its sources mixed, played repeatedly: only its sender is banned.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import islice
from pathlib import Path

from attrs import evolve, frozen
from panoramisk.message import Message
from tests.bench.crowd import (
    ATTACKERS,
    BANNER,
    CHOSEN,
    FRIENDS,
    HOUR,
    MILLION,
    THRESHOLD,
    Crowd,
    a_thousand,
    chosen,
    every_rule,
    guesses,
    hold,
    packet,
    strangers,
)
from tests.bench.figures import Figure, spread
from tests.support.captures import Capture, captures
from tests.support.daemon import Guard, ami_server, until
from tests.support.process import resident

from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Effect, Judgement
from ringfence.detect.rules import Rule
from ringfence.guard.process import tune_collector
from ringfence.parse.ami import END, AmiDecoder
from ringfence.parse.log import LogReader
from ringfence.values.event import SecurityEvent, Service, SourceId
from ringfence.values.network import Network
from ringfence.values.packet import CopiedAnswer

MEBIBYTE = 2**20
MEGABYTE = 1_000_000
ROUNDS = 3
BYTES = 8 * MEBIBYTE
CHUNK = 4096
LEAST = 0.25
"""In all, a guess costs ringfence a third of what it costs Asterisk (AMI alone, in the part ``costs``)."""

MOST_MEMORY = 200
_PIECE = 5_000  # packets in one write
_READ_WITHIN = 600.0  # seconds

TIMES = 6
SEEDS = 5
_TAIL = b"198.18.1."  # the prefix of the senders in the recordings


# -- the cost ------------------------------------------------------------------------------------------


def stream() -> bytes:
    """Return the recordings several times, each time with other addresses."""
    recorded = b"".join(c.ami.read_bytes() for c in captures() if c.group == "asterisk-22")
    return b"".join(
        recorded.replace(_TAIL, b"10.%d.%d." % divmod(number, 256))
        for number in range(BYTES // len(recorded))
    )


def deciding() -> list[float]:
    """Time bytes → decisions, compared with panoramisk's Message.from_line; return ratios."""
    tune_collector()  # as the daemon does after its start; the same for panoramisk
    received = stream()
    texts = [packet.decode("utf-8", "replace") for packet in received.split(END) if packet]
    ratios = []
    for _ in range(ROUNDS):
        decoder = AmiDecoder(SourceId("bench", "ami"))
        decoder.receive(BANNER, 0.0)
        detector = Detector(every_rule(), friends=a_thousand())
        theirs = _timed(partial(_from_lines, texts))
        ours = _timed(partial(_decide, decoder, detector, received))
        ratios.append(theirs / ours)
    return ratios


def _decide(decoder: AmiDecoder, detector: Detector, received: bytes) -> None:
    for number, start in enumerate(range(0, len(received), CHUNK)):
        now = number * 0.01
        for item in decoder.receive(received[start : start + CHUNK], now):
            if isinstance(item, SecurityEvent):
                for effect in detector.observe(item, now):
                    hold(detector, effect, now)
        if number % 100 == 0:  # each second
            for effect in detector.tick(now):
                hold(detector, effect, now)


def _from_lines(texts: Sequence[str]) -> None:
    for text in texts:  # the results are not kept, as with our decoder
        Message.from_line(text)


def _timed(action: partial[None]) -> float:
    """Return the processor time of an action, which other processes do not lengthen."""
    began = time.process_time()
    action()
    return time.process_time() - began


# -- a million -----------------------------------------------------------------------------------------


@frozen
class Held:
    """The result of a million addresses in a daemon: the time, and the addresses that it remembers."""

    seconds: float
    crowd: Crowd


def in_an_hour() -> Crowd:
    """Run the hour of :mod:`tests.bench.crowd` in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.crowd"], capture_output=True, text=True, check=True, timeout=1_200
    )
    return Crowd(**json.loads(done.stdout))


def held() -> Held:
    """Send a daemon events of a million addresses, of attackers among them, and of some addresses again."""
    crowd = strangers()
    half = MILLION // 2
    with (
        tempfile.TemporaryDirectory() as folder,
        ami_server() as server,
        Guard(Path(folder), ami={"port": server.port}) as guard,
    ):
        until(lambda: guard.source_is("listening"), "the source")
        began = time.monotonic()
        for start in range(0, MILLION, _PIECE):
            part = enumerate(islice(crowd, _PIECE), start)
            server.send(b"".join(packet(one, number) for number, one in part))
            if start == half:
                server.send(b"".join(guesses(ATTACKERS[0], b"TCP")))
            _let_it_read(guard, start + _PIECE)
        _let_it_read(guard, MILLION, 0)
        seconds, memory = time.monotonic() - began, resident(guard.pid)
        server.send(b"".join(guesses(ATTACKERS[1], b"TCP")))
        again = chosen()
        server.send(b"".join(p for one in again for p in guesses(one, b"UDP", THRESHOLD - 1)))
        wanted = {*again, *ATTACKERS}
        until(lambda: guard.banned() >= wanted, "the bans", 60.0)
        rows = {row["address"]: row["attempts"] for row in guard.bans()}
        remembered = sum(rows.get(one) == THRESHOLD for one in again)
        stopped = [rows.get(attacker, 0) for attacker in ATTACKERS]
        return Held(seconds, Crowd(memory, remembered, stopped, len(rows.keys() - wanted)))


def _let_it_read(guard: Guard, sent: int, ahead: int = 20_000) -> None:
    """Wait until the daemon has read all but ``ahead`` of the events."""
    enough = max(sent - ahead, 0)
    what = f"the daemon counts {enough} attempts"
    until(lambda: guard.ask("status")["attempts"] >= enough, what, _READ_WITHIN)


# -- the banned addresses ------------------------------------------------------------------------------


def hit() -> tuple[int, int, set[str]]:
    """Replay all recordings; return the number of replays and bans, and the wrongly banned networks."""
    played, bans, wrong = 0, 0, set[str]()
    for capture in captures():
        sources = _events_by_source(capture)
        for rules in (every_rule(), every_rule(attempts=1)):
            for seed in range(SEEDS):
                for wire in (_wire(capture, sources), None):
                    found = _banned(rules, sources, wire, seed)
                    played += 1
                    bans += len(found)
                    wrong |= {str(network) for network in found if capture.source not in network}
    return played, bans, wrong


def _events_by_source(capture: Capture) -> list[list[SecurityEvent]]:
    """Return the events of each source of a recording."""
    ami = AmiDecoder(SourceId("pbx", "ami"))
    decoded = [*ami.receive(BANNER + capture.ami.read_bytes(), 0.0), *ami.tick(1.0)]
    sources = [[event for event in decoded if isinstance(event, SecurityEvent)]]
    for path in (capture.security_log, capture.messages_log):
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        readings = [*reader.receive(path.read_bytes(), 0.0), *reader.end(0.0)]
        sources.append([reading.event for reading in readings if reading.event is not None])
    return sources


def _wire(capture: Capture, sources: Iterable[Iterable[SecurityEvent]]) -> list[CopiedAnswer]:
    """Return a challenge for each session of the true sender, as the kernel sees PJSIP's challenges."""
    here = ip_address("198.18.0.1")
    events = (event for source in sources for event in source)
    calls = {e.session for e in events if e.service is Service.PJSIP and e.remote.address == capture.source}
    return [
        CopiedAnswer(capture.source, 5062, here, 5060, call, b"n", capture.source) for call in sorted(calls)
    ]


def _banned(
    rules: tuple[Rule, ...],
    sources: Sequence[Sequence[SecurityEvent]],
    wire: list[CopiedAnswer] | None,
    seed: int,
) -> set[Network]:
    """Play the sources' events repeatedly, each time in a new mixture; return the banned networks."""
    detector = Detector(rules, sources=KnownSources(frozenset({"pbx"})))
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    found: list[Effect] = []
    for turn in range(TIMES):
        now = 20.0 * turn
        if wire is not None:
            found += detector.observe_answers(wire, now, now, "pbx")
        rest = [iter(source) for source in sources]
        order = [number for number, source in enumerate(sources) for _ in source]
        dice.shuffle(order)
        for number in order:
            event = next(rest[number])
            found += detector.observe(evolve(event, time=event.time + now), now)
        found += detector.tick(now + 10.0, now + 10.0, wire=wire is not None)
    return {j.decision.subject for j in found if isinstance(j, Judgement) and j.decision is not None}


# -- the rows ------------------------------------------------------------------------------------------


def speeds(_: Path | None) -> Iterator[Figure]:
    """Measure the speed alone, and yield its row."""
    yield _costs(deciding())


def figures(_: Path | None) -> Iterator[Figure]:
    """Count, and yield the rows."""
    yield from _million(in_an_hour(), held())
    yield _hits()


def _costs(ratios: Sequence[float]) -> Figure:
    return Figure(
        what=f"bytes → decisions with every rule on and {FRIENDS} friends, of `Message.from_line` alone",
        measured=spread(ratios, " times"),
        must=f"median ≥ {LEAST} times",
        reached=sorted(ratios)[len(ratios) // 2] >= LEAST,
    )


def _million(hour: Crowd, real: Held) -> Iterator[Figure]:
    ways = (
        (f"within an hour ({HOUR:.0f} s of its time), all that the daemon loads in one process", hour),
        (f"within {real.seconds:.0f} s, a real daemon over AMI", real.crowd),
    )
    for how, found in ways:
        # In a minute sixty times as many callers have unfinished sessions: that has no goal.
        most = MOST_MEMORY if found is hour else None
        yield Figure(
            what=f"{MILLION} addresses, one attempt each, {how}: resident memory; of {CHOSEN} chosen, held",
            measured=f"{found.memory / MEGABYTE:.0f} MB; {found.remembered}",
            must=f"≤ {most} MB; {CHOSEN}" if most else str(CHOSEN),
            reached=found.remembered == CHOSEN and (most is None or found.memory <= most * MEGABYTE),
        )
        yield Figure(
            what="then: attempts after which somebody who guesses among them is banned; others banned",
            measured=f"{', '.join(map(str, found.stopped))}; {found.others}",
            must=f"{THRESHOLD}; 0",
            reached=set(found.stopped) == {THRESHOLD} and not found.others,
        )


def _hits() -> Figure:
    played, bans, wrong = hit()
    return Figure(
        what=(
            f"over all recordings ({played} times, each rule with its number and with 1): "
            "bans of an address that sent nothing"
        ),
        measured=f"{len(wrong)} of {bans} bans",
        must="0 of some",
        reached=not wrong and bans > 0,
    )
