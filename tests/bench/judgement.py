"""What judging costs, and whether it ever hits the wrong one: every rule on, friends known.

- From the bytes of AMI to decisions, against panoramisk's parsing of the same packets alone.
- A million addresses with one attempt each, held by a real daemon that is told of them over AMI.
- Every recording, mixed over its sources and told again and again: nobody but its sender is banned.
"""

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from attrs import evolve, frozen
from panoramisk.message import Message
from tests.bench import hostile
from tests.bench.attacks import THRESHOLD
from tests.bench.figures import Figure, spread
from tests.support.captures import Capture, captures
from tests.support.daemon import Guard, ami_server, until
from tests.support.lab import Lab
from tests.support.process import resident

from ringfence.detect.detector import Detector, Judgement
from ringfence.detect.friends import Friends
from ringfence.detect.rules import RULES, Rule
from ringfence.model import Address, Challenge, Friend, Network, SecurityEvent, Service, SourceId, Tie
from ringfence.parse.ami import END, AmiDecoder
from ringfence.parse.log import LogReader

MEBIBYTE = 2**20
MEGABYTE = 1_000_000
ROUNDS = 7
BYTES = 8 * MEBIBYTE
CHUNK = 4096
FRIENDS = 1_000
LEAST = 0.4
DECOY = "boss"
"""An account that exists for nobody, so that the rule `decoy` has something to look for."""

MILLION = 1_000_000
MOST_MEMORY = 200
CHOSEN = 20
ATTACKERS = ("198.51.100.7", "198.51.100.8")
_PIECE = 5_000  # packets to a write
_READ_WITHIN = 600.0  # seconds

TIMES = 6
SEEDS = 10
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
_TAIL = b"198.18.1."  # how the senders of the recordings begin


def every_rule(attempts: int = 0) -> tuple[Rule, ...]:
    """Give all rules, each on; with so many attempts where a number is given."""
    return tuple(
        evolve(
            rule,
            enabled=True,
            attempts=attempts or rule.attempts,
            accounts=rule.accounts if rule.accounts is None else frozenset({DECOY}),
        )
        for rule in RULES
    )


# -- what it costs -------------------------------------------------------------------------------------


def stream() -> bytes:
    """Give the recordings over and over, each time from other addresses."""
    recorded = b"".join(c.ami.read_bytes() for c in captures() if c.group == "asterisk-22")
    return b"".join(
        recorded.replace(_TAIL, b"10.%d.%d." % divmod(number, 256))
        for number in range(BYTES // len(recorded))
    )


def friends() -> Friends:
    """Give a thousand phones."""
    known = Friends()
    for number in range(FRIENDS):
        account, address = f"phone{number}", IPv4Address("192.0.2.0") + 7 * number
        known.meet(Friend("bench", address, account, Tie.AUTHENTICATED, 0.0, 0.0, 1e12))
    return known


def deciding() -> list[float]:
    """Time bytes → decisions against panoramisk's Message.from_line on the same packets; give ratios."""
    told = stream()
    texts = [packet.decode("utf-8", "replace") for packet in told.split(END) if packet]
    ratios = []
    for _ in range(ROUNDS):
        decoder = AmiDecoder(SourceId("bench", "ami"))
        decoder.feed(BANNER, 0.0)
        detector = Detector(every_rule(), friends=friends())
        theirs = _timed(partial(_from_lines, texts))
        ours = _timed(partial(_decide, decoder, detector, told))
        ratios.append(theirs / ours)
    return ratios


def _decide(decoder: AmiDecoder, detector: Detector, told: bytes) -> None:
    for number, start in enumerate(range(0, len(told), CHUNK)):
        now = number * 0.01
        for item in decoder.feed(told[start : start + CHUNK], now):
            if isinstance(item, SecurityEvent):
                _hold(detector, detector.observe(item, now), now)
        if number % 100 == 0:  # each second
            for judgement in detector.tend(now):
                _hold(detector, judgement, now)


def _hold(detector: Detector, judgement: Judgement | None, now: float) -> None:
    """Do what the daemon does to the detector when it bans."""
    if judgement is not None and judgement.decision is not None:
        decision = judgement.decision
        detector.hold(decision.subject, now + decision.rule.ban_for(0), decision.scope)


def _from_lines(texts: Sequence[str]) -> None:
    for text in texts:  # none is kept, as none of ours is
        Message.from_line(text)


def _timed(action: partial[None]) -> float:
    """Give the processor's time for it: what else runs on this machine is no matter."""
    began = time.process_time()
    action()
    return time.process_time() - began


# -- a million -----------------------------------------------------------------------------------------


@frozen
class Held:
    """A daemon that was told of a million addresses: its memory, and who was banned."""

    memory: int
    seconds: float
    attempts: int
    remembered: int
    """Of those chosen at random: how many were banned with four attempts more, so that none was forgotten."""
    stopped: tuple[int, ...]
    """How many attempts the attackers' bans name."""
    others: int


_PACKET = (
    b"Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\n"
    b"EventTV: %s+0000\r\nSeverity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\n"
    b"AccountID: %d\r\nSessionID: %s\r\nLocalAddress: IPV4/UDP/198.18.0.1/5060\r\n"
    b"RemoteAddress: IPV4/%s/%s/5060\r\n"
    b"Challenge: 1700000000/0123456789abcdef0123456789abcdef\r\nResponse: %032x\r\nExpectedResponse: \r\n\r\n"
)


def packet(address: Address, number: int, transport: bytes = b"UDP") -> bytes:
    """Give what AMI tells of one guess."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000", time.gmtime()).encode()
    session = b"%032x@phone" % (number * 0x9E3779B97F4A7C15)
    account = 1_000 + number % 9_000
    return _PACKET % (moment, account, session, transport, str(address).encode(), number)


def strangers() -> Iterator[IPv4Address]:
    """Give distinct addresses all over the Internet, in no order."""
    value = 1
    while True:
        value = value * 1_664_525 + 1_013_904_223 & 0xFFFFFFFF  # each value once
        if 11 <= value >> 24 < 100 or (128 <= value >> 24 < 192 and value >> 24 not in {169, 172}):
            yield IPv4Address(value)


def held() -> Held:
    """Tell a daemon of a million, of attackers in the middle of them, and of some again at the end."""
    crowd = strangers()
    everybody = [next(crowd) for _ in range(MILLION)]
    half = MILLION // 2
    with (
        tempfile.TemporaryDirectory() as folder,
        ami_server() as server,
        Guard(Path(folder), ami={"port": server.port}) as guard,
    ):
        until(lambda: guard.source_is("listening"), "the source")
        began = time.monotonic()
        for start in range(0, MILLION, _PIECE):
            part = everybody[start : start + _PIECE]
            server.say(b"".join(packet(one, start + number) for number, one in enumerate(part)))
            if start == half:
                server.say(b"".join(_guesses(ATTACKERS[0], b"TCP")))
            _let_it_read(guard, start + _PIECE)
        _let_it_read(guard, MILLION, 0)
        seconds, memory = time.monotonic() - began, resident(guard.pid)
        server.say(b"".join(_guesses(ATTACKERS[1], b"TCP")))
        chosen = random.Random(7).sample(everybody, CHOSEN)  # noqa: S311 - no secret
        server.say(b"".join(p for one in chosen for p in _guesses(str(one), b"UDP", THRESHOLD - 1)))
        wanted = {*map(str, chosen), *ATTACKERS}
        until(lambda: guard.banned() >= wanted, "the bans", 60.0)
        rows = {row["address"]: row["attempts"] for row in guard.bans()}
        return Held(
            memory=memory,
            seconds=seconds,
            attempts=guard.status()["attempts"],
            remembered=sum(rows.get(str(one)) == THRESHOLD for one in chosen),
            stopped=tuple(rows.get(attacker, 0) for attacker in ATTACKERS),
            others=len(rows.keys() - wanted),
        )


def _guesses(address: str, transport: bytes, number: int = THRESHOLD) -> Iterator[bytes]:
    return (packet(ip_address(address), 2_000_000 + guess, transport) for guess in range(number))


def _let_it_read(guard: Guard, told: int, ahead: int = 20_000) -> None:
    """Wait until the daemon is no further behind than that."""
    until(lambda: guard.ask("status")["attempts"] >= told - ahead, "the daemon reads", _READ_WITHIN)


# -- whom it hits --------------------------------------------------------------------------------------


def hit() -> tuple[int, int, set[str]]:
    """Replay all recordings; give how often, how many bans there were, and who was banned for nothing."""
    played, bans, wrong = 0, 0, set[str]()
    for capture in captures():
        stories = _stories(capture)
        for rules in (every_rule(), every_rule(attempts=1)):
            for seed in range(SEEDS):
                for wire in (_wire(capture, stories), None):
                    found = _banned(rules, stories, wire, seed)
                    played += 1
                    bans += len(found)
                    wrong |= {str(network) for network in found if capture.source not in network}
    return played, bans, wrong


def _stories(capture: Capture) -> list[list[SecurityEvent]]:
    """Give what each source tells of a recording."""
    ami = AmiDecoder(SourceId("pbx", "ami"))
    heard = [*ami.feed(BANNER + capture.ami.read_bytes(), 0.0), *ami.tick(1.0)]
    stories = [[event for event in heard if isinstance(event, SecurityEvent)]]
    for path in (capture.security_log, capture.messages_log):
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        readings = [*reader.feed(path.read_bytes(), 0.0), *reader.end(0.0)]
        stories.append([reading.event for reading in readings if reading.event is not None])
    return stories


def _wire(capture: Capture, stories: Iterable[Iterable[SecurityEvent]]) -> list[Challenge]:
    """Give a challenge for each call of the true sender's, as the kernel sees PJSIP's leave."""
    here = ip_address("198.18.0.1")
    told = (event for story in stories for event in story)
    calls = {e.session for e in told if e.service is Service.PJSIP and e.remote.address == capture.source}
    return [Challenge(capture.source, 5062, here, 5060, call, b"n", capture.source) for call in sorted(calls)]


def _banned(
    rules: tuple[Rule, ...],
    stories: Sequence[Sequence[SecurityEvent]],
    wire: list[Challenge] | None,
    seed: int,
) -> set[Network]:
    """Tell the stories again and again, mixed anew each time; give who is banned."""
    detector = Detector(rules, several=frozenset({"pbx"}))
    dice = random.Random(seed)  # noqa: S311 - no secret
    found: list[Judgement | None] = []
    for turn in range(TIMES):
        now = 20.0 * turn
        if wire is not None:
            found += detector.see(wire, now, now, "pbx")
        rest = [iter(story) for story in stories]
        order = [number for number, story in enumerate(stories) for _ in story]
        dice.shuffle(order)
        for number in order:
            event = next(rest[number])
            found.append(detector.observe(evolve(event, time=event.time + now), now))
        found += detector.tend(now + 10.0, now + 10.0, wire=wire is not None)
    return {j.decision.subject for j in found if j is not None and j.decision is not None}


# -- the rows ------------------------------------------------------------------------------------------


def figures(lab: Lab, root: Path | None) -> list[Figure]:
    """Measure, and give the rows."""
    return [_costs(deciding()), *_million(held()), _hits(lab)]


def _costs(ratios: Sequence[float]) -> Figure:
    return Figure(
        what=f"bytes → decisions with every rule on and {FRIENDS} friends, of `Message.from_line` alone",
        measured=spread(ratios, " times"),
        must=f"≥ {LEAST} times",
        reached=sorted(ratios)[len(ratios) // 2] >= LEAST,
    )


def _million(found: Held) -> Iterator[Figure]:
    speed = f"told in {found.seconds:.0f} s"
    yield Figure(
        what=f"{MILLION} addresses, one attempt each, {speed}, all held: resident memory of the daemon",
        measured=(
            f"{found.memory / MEGABYTE:.0f} MB; {found.remembered} of {CHOSEN} chosen ones were remembered"
        ),
        must=f"≤ {MOST_MEMORY} MB, {CHOSEN}",
        reached=found.memory <= MOST_MEMORY * MEGABYTE and found.remembered == CHOSEN,
    )
    yield Figure(
        what="then: the attempts after which somebody who guesses among them is banned; others banned",
        measured=f"{', '.join(map(str, found.stopped))}; {found.others}",
        must=f"{THRESHOLD}; 0",
        reached=set(found.stopped) == {THRESHOLD} and not found.others,
    )


def _hits(lab: Lab) -> Figure:
    played, bans, wrong = hit()
    live = {other for outcome in hostile.ours(lab) for other in outcome.others}
    return Figure(
        what=(
            f"over all recordings ({played} times, each rule with its number and with 1) and hostile "
            "scenarios without forged source addresses: bans of an address that sent nothing"
        ),
        measured=f"{len(wrong | live)} (of {bans} bans by recordings)",
        must="0",
        reached=not wrong and not live,
        compared="fail2ban: see the forged log line and the forged packets",
    )
