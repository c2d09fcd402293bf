"""Recordings of real servers: the number of attempts is right for any source and any order."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from ipaddress import ip_address
from itertools import accumulate, combinations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.captures import FORGED, Capture, captures
from tests.support.transcript import Happened, Player, Sources, Step, Tick, at

from ringfence.parse.ami import AmiDecoder
from ringfence.parse.log import LogReader
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.packet import CopiedAnswer

AMI, SECURITY, NOTICES = range(3)
BANNER = b"Asterisk Call Manager/11.0.0\r\n"

SILENCED = {"call-id-not-utf8", "nonce-not-utf8"}
"""AMI and the security log report these incompletely or not at all, and the notices report them."""

UNSPEAKABLE = {"esc-and-not-utf8"}
"""Only the wire shows it, and the notices name a stranger."""

MUTE_NOTICES = {
    "display-name-forges-address",
    "esc-forges-notice",
    "esc-forges-security",
    "nul-and-call-id",
}
"""The notices of these name several addresses, or another Call-ID, so they name no address."""

ANOTHER_CALL_ID = {"esc-forges-security"}
"""An ESC in the Call-ID makes the log show another one than AMI, so they are two calls to any reader."""

REPEATED = {"retransmitted-answer"}
"""A notice does not show which digest failed, so it forgives no repetition."""

REWRITTEN = {"user-carries-crlf-event", "user-carries-crlf-header"}
"""The notices write the account otherwise than AMI does.

If all sources are read, and another one overtakes the notices between two lines, one attempt more may count.
"""

CROSSED = {"interleaved-one-call-id", *REWRITTEN}
"""Two guesses cross under one Call-ID, or the notices write the account otherwise than AMI does.

A source that loses a line between two of its reports, or that another source overtakes between them, may then
report one attempt more.
"""


@cache
def heard(capture: Capture) -> tuple[tuple[SecurityEvent, ...], ...]:
    """Return the reports of each source about a recording: AMI, the security log, and the notices."""
    ami = AmiDecoder(SourceId("pbx", "ami"))
    events = [*ami.receive(BANNER + capture.ami.read_bytes(), 0.0), *ami.tick(1.0)]
    told = [tuple(event for event in events if isinstance(event, SecurityEvent))]
    for path in (capture.security_log, capture.messages_log):
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        readings = [*reader.receive(path.read_bytes(), 0.0), *reader.end(0.0)]
        told.append(tuple(reading.event for reading in readings if reading.event is not None))
    return tuple(told)


def wire_of(capture: Capture) -> list[CopiedAnswer]:
    """Return the answers that the true sender got: a challenge for each call of PJSIP, all of chan_sip's."""
    reported = [event for story in heard(capture) for event in story]
    calls = {
        (
            e.session,
            Transport.UDP if e.remote.transport in (Transport.UDP, Transport.UNKNOWN) else Transport.TCP,
        )
        for e in reported
        if e.service is Service.PJSIP and e.session and e.remote.address == capture.source
    }
    plain = CopiedAnswer(capture.source, 5062, ip_address("198.18.0.1"), 5060, b"", b"n", capture.source)
    pjsip = [evolve(plain, call_id=call, transport=transport) for call, transport in sorted(calls)]
    chan_sip = [
        evolve(
            plain, call_id=event.session, nonce=event.challenge, service=Service.SIP, status=_status(event)
        )
        for event in heard(capture)[AMI]
        if event.service is Service.SIP and event.kind is not EventKind.SUCCESSFUL_AUTH
    ]
    return pjsip + chan_sip


def _status(event: SecurityEvent) -> int:
    """Return the status that chan_sip answers to the request that raised ``event``."""
    if event.acl_name == "no_extension_match":
        return 404
    return 401 if event.kind is EventKind.CHALLENGE_SENT else 403


def judged(events: list[SecurityEvent], wire: list[CopiedAnswer] | None = None) -> Happened:
    """Return the result if all events are reported at once."""
    guard = Player(sources=("AMI", "log") if wire is None else ("AMI", "log", "wire"))
    seen = [Step(0.0, tuple(wire))] if wire else []
    return guard.play(*seen, Step(0.0, tuple(events)), at(1.0, Tick()))


def mixed(capture: Capture, lost: frozenset[int], seed: int) -> list[SecurityEvent]:
    """Return the reports of the sources that are not lost, mixed at random, each source in its own order."""
    stories = [list(story) for number, story in enumerate(heard(capture)) if number not in lost]
    order = [number for number, story in enumerate(stories) for _ in story]
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return [stories[number].pop(0) for number in order]


@cache
def numbered() -> tuple[Capture, ...]:
    """Return the recordings with a known number of attempts, which any source but the wire reports."""
    return tuple(one for one in captures() if one.attempts and one.name not in UNSPEAKABLE)


@cache
def of_pjsip() -> tuple[Capture, ...]:
    """Return those of PJSIP; all others are chan_sip's."""
    return tuple(
        one
        for one in numbered()
        if any(event.service is Service.PJSIP for story in heard(one) for event in story)
    )


WAYS = [
    (frozenset(lost), wire)
    for number in range(3)
    for lost in combinations((AMI, SECURITY, NOTICES), number)
    for wire in (False, True)
]
"""Which sources are lost, and whether there is a wire: one source at least is left."""

SEEDS = st.integers(0, 2**32)
TURNS = st.integers(0, len(WAYS) - 1)
"""Each recording is played in another way than the one before it; a turn is the way of the first."""

# Each example plays every recording: 6 examples in a short run, 100 in a long one.
plays = settings(max_examples=settings().max_examples ** 2 // 100)


@given(seed=SEEDS, turn=TURNS)
@plays
def test_any_interleaving_counts_the_same(seed: int, turn: int) -> None:
    """In any interleaving the number is right, if at least one source is read that can show it."""
    for number, capture in enumerate(of_pjsip()):
        name, (lost, wire) = capture.name, WAYS[(number + turn) % len(WAYS)]
        able = {
            AMI: name not in SILENCED,
            SECURITY: wire and name not in SILENCED,
            NOTICES: wire and name not in MUTE_NOTICES,
        }
        tellers = {source for source in able if able[source] and source not in lost}

        happened = judged(mixed(capture, lost, seed), wire_of(capture) if wire else None)

        case = f"{capture} without {set(lost)}, {wire=}"
        assert {*happened.counted_addresses} <= {str(capture.source)}, case
        twice = name in ANOTHER_CALL_ID and {AMI, SECURITY} <= tellers
        again = name in REPEATED and NOTICES in tellers
        truth = (capture.attempts or 0) * (1 + twice) + again
        more = happened.counted - (truth if tellers else 0)
        overtaken = name in REWRITTEN and not lost
        assert more == 0 or (more == 1 and overtaken), case


SHARES = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0))


@given(
    late=st.tuples(*[st.floats(0.0, 3.0)] * 3), loser=st.sampled_from([AMI, SECURITY, NOTICES]), block=SHARES
)
@plays
def test_neither_delay_nor_a_loss_changes_the_number(
    late: tuple[float, float, float], loser: int, block: tuple[float, float]
) -> None:
    """The number is right with each source up to 3 s late, and a block of one source lost.

    AMI loses events with its connection, so nothing is concluded from events that are missing then.
    """
    for capture in of_pjsip():
        if capture.name in SILENCED | MUTE_NOTICES | REPEATED:
            continue
        stories = [list(story) for story in heard(capture)]
        start, end = sorted(round(share * len(stories[loser])) for share in block)
        del stories[loser][start:end]
        arrivals = sorted(
            (
                (position * 0.001 + delay, number, event)
                for number, (story, delay) in enumerate(zip(stories, late, strict=True))
                for position, event in enumerate(story)
            ),
            key=lambda arrival: arrival[:2],
        )
        steps = [at(0.0, Sources(ami=loser != AMI)), Step(0.0, tuple(wire_of(capture)))]
        steps += [Step(now, (Tick(), event)) for now, _, event in arrivals]
        happened = Player().play(*steps, at(5.0, Tick()))

        more = happened.counted - (capture.attempts or 0)
        assert more == 0 or (more == 1 and capture.name in CROSSED), capture
        assert {*happened.counted_addresses} == {str(capture.source)}, capture


@given(seed=SEEDS, turn=TURNS)
@plays
def test_the_wire_settles_chan_sip(seed: int, turn: int) -> None:
    """The wire names the true sender, and each attempt counts once; without it AMI and a line must agree."""
    chan_sip = [one for one in numbered() if one not in of_pjsip()]
    for number, capture in enumerate(chan_sip):
        for lost, wire in (WAYS[(number + turn) % len(WAYS)], (frozenset[int](), True)):
            happened = judged(mixed(capture, lost, seed), wire_of(capture) if wire else None)

            case = f"{capture} without {set(lost)}, {wire=}"
            assert {*happened.counted_addresses} <= {str(capture.source)}, case
            if wire and not lost:
                assert happened.counted == capture.attempts, case


@given(seed=SEEDS, wire=st.booleans())
@plays
def test_only_the_true_sender_is_counted(seed: int, *, wire: bool) -> None:
    """In any recording, with the wire and without it, only attempts of the true sender count."""
    for capture in captures():
        happened = judged(mixed(capture, frozenset(), seed), wire_of(capture) if wire else None)

        assert {*happened.counted_addresses} <= {str(capture.source)}, capture
        if wire:
            assert {*happened.of("unconfirmed")} <= {str(capture.source), str(FORGED)}, capture


@given(seed=SEEDS)
@plays
def test_the_log_alone_counts_only_the_true_sender(seed: int) -> None:
    """In any recording, also while AMI and the wire are away, only attempts of the true sender count."""
    for capture in captures():
        events = mixed(capture, frozenset({AMI}), seed)
        happened = Player(sources=("log",)).play(Step(0.0, tuple(events)), at(1.0, Tick()))

        assert {*happened.counted_addresses} <= {str(capture.source)}, capture


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("wire", [False, True])
def test_the_challenges_of_chan_sip_are_evidence(*, logs: bool, wire: bool) -> None:
    """Without AMI's events ChallengeSent of chan_sip, two recordings have other attempts.

    Without those of PJSIP by UDP none has: in the recordings no call is repeated with one Call-ID.
    """
    assert not _differing(Service.PJSIP, logs=logs, wire=wire)
    chan_sip = _differing(Service.SIP, logs=logs, wire=wire)
    assert {*chan_sip} == ({"cs-known-misdial"} if logs else {"cs-known-misdial", "cs-not-utf8"})


def _differing(service: Service, *, logs: bool, wire: bool) -> list[str]:
    """Return the recordings that have other attempts without AMI's challenges of ``service`` by UDP."""
    differing = []
    for capture in captures():
        ami, *others = heard(capture)
        rest = [event for told in others for event in told] if logs else []
        left = [
            event
            for event in ami
            if event.kind is not EventKind.CHALLENGE_SENT
            or event.service is not service
            or event.remote.transport is not Transport.UDP
        ]
        answers = wire_of(capture) if wire else None
        if judged([*ami, *rest], answers) != judged([*left, *rest], answers):
            differing.append(capture.name)
    return differing


def test_a_forgeable_line_alone_never_counts() -> None:
    """In any recording, PJSIP's notices alone never count, and chan_sip's events alone never do."""
    for capture in captures():
        *others, notices = heard(capture)
        pjsip = [event for event in notices if event.forgeable]
        chan_sip = [event for told in others for event in told if event.service is Service.SIP]

        assert judged(pjsip).counted == judged(chan_sip).counted == 0, capture


def test_what_the_wire_knows_to_be_forged_is_not_even_listed() -> None:
    """A notice without its challenge is forged."""
    forged = next(c for c in captures() if c.name == "esc-forges-notice")
    happened = judged(list(heard(forged)[NOTICES]), wire_of(forged))
    assert {line.partition(",")[0] for line in happened.attempts} == {f"{FORGED} forged"}


# -- AMI alone -------------------------------------------------------------------------------------------

SUPPRESSED = {"call-id-not-utf8", "nonce-not-utf8", "esc-and-not-utf8"}
"""AMI reports nothing of these."""

NAMED_BY_VIA = {"chan-sip-via-maddr-forges-address", "cs-invite-maddr", "cs-guest-invite-maddr"}
"""In these AMI names a stranger that a Via names. Nothing confirms the stranger, so nothing is banned."""

SHAPES = {
    "cs-unanswered": 0,
    "cs-known-misdial": 0,
    "cs-register-nonexist-peer-mismatch": 2,
    "cs-options": 0,
    "cs-esc-forges-notice": 3,
    "cs-esc-m": 4,
    "cs-nul": 0,
    "cs-not-utf8": 2,
    "unknown-account-no-auth": 0,
    "unknown-account-options": 0,
    "unanswered-one-call-id": 0,
    "from-forms": 23,
    "callid-forms": 0,
    "other-methods": 0,
    "known-probe": 0,
    "stale-or-wrong-realm": 2,
    "esc-no-m": 2,
    "esc-callid-tail": 1,
    "retransmitted-probe": 0,
    "mixed-probe-then-known-guess": 2,
}
"""Recordings without a known number of attempts, and the number that their AMI events make."""


def whole(stream: bytes) -> list[bytes]:
    """Return a stream as one piece."""
    return [stream]


def bytewise(stream: bytes) -> list[bytes]:
    """Return the first thousand bytes of a stream one by one, and then its rest."""
    return [*(bytes([byte]) for byte in stream[:1000]), stream[1000:]]


def split(stream: bytes) -> list[bytes]:
    """Return a stream in pieces of random lengths, the same ones each time."""
    chance = random.Random(len(stream))  # noqa: S311 - no secret
    pieces = []
    while stream:
        size = chance.randint(1, 700)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


@pytest.mark.parametrize("cut", [whole, bytewise, split])
def test_ami_alone_gives_number_and_source_of_attempts(cut: Callable[[bytes], Sequence[bytes]]) -> None:
    """The number is right however the bytes are cut; chan_sip's attempts are unconfirmed."""
    for capture in captures():
        decoder = AmiDecoder(SourceId("pbx", "ami"))
        decoded = decoder.receive(BANNER, 0.0)
        for piece in cut(capture.ami.read_bytes()):
            decoded += decoder.receive(piece, 0.0)
        decoded += decoder.tick(1.0)
        events = tuple(event for event in decoded if isinstance(event, SecurityEvent))

        arrivals = accumulate((event.time - events[0].time for event in events), max)
        steps = (Step(time, (event,)) for time, event in zip(arrivals, events, strict=True))
        happened = Player(sources=("AMI",)).play(steps)

        expected = SHAPES[capture.name] if capture.attempts is None else capture.attempts
        source = FORGED if capture.name in NAMED_BY_VIA else capture.source
        chan_sip = {event.service for event in events} == {Service.SIP}
        standing = "unconfirmed" if chan_sip else "counted"
        number = 0 if capture.name in SUPPRESSED else expected
        assert len(happened.attempts) == number, capture
        assert {line.partition(",")[0] for line in happened.attempts} <= {
            f"{source} {standing}",
            f"{source} counted as a friend's",
            f"{source} late",
        }, capture


def test_the_lists_of_recordings_are_complete() -> None:
    """Every recording without a known number of attempts is listed, and each listed recording exists."""
    assert set(SHAPES) == {capture.name for capture in captures() if capture.attempts is None}
    assert {*SUPPRESSED, *NAMED_BY_VIA} <= {capture.name for capture in captures()}
