"""Recordings of real servers, told by several sources at once: the order changes nothing."""

import random
from functools import cache
from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.support.captures import Capture, captures

from ringfence.detect.detector import Detector, Judgement, Standing
from ringfence.detect.doubts import PATIENCE
from ringfence.detect.rules import RULES
from ringfence.model import AttemptKind, Challenge, SecurityEvent, Service, SourceId
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.log import LogReader

AMI, SECURITY, NOTICES = range(3)
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
COUNTING = (evolve(RULES[0], attempts=1_000, counts=frozenset(AttemptKind)),)

SILENCED = {"call-id-not-utf8", "nonce-not-utf8"}
"""AMI and the security log tell nothing, or not all, of these: the notices do."""

UNSPEAKABLE = {"esc-and-not-utf8"}
"""Nobody tells of it but the wire, and the notices blame a stranger."""

MUTE_NOTICES = {
    "display-name-forges-address",
    "esc-forges-notice",
    "esc-forges-security",
    "nul-and-call-id",
}
"""The notices of these name several, or another Call-ID: they name nobody."""

UNCHALLENGED = {"parallel-probes-one-call-id"}
"""The notices do not show where a probe was challenged, and tell of one less."""

ANOTHER_CALL_ID = {"esc-forges-security"}
"""An ESC in the Call-ID makes the log show another one than AMI: two calls, as far as anybody can tell."""

REPEATED = {"retransmitted-answer"}
"""A notice does not show which digest failed, so it forgives no repetition."""

CROSSED = {"interleaved-one-call-id"}
"""Two guesses cross under one Call-ID: who loses a line between them may tell of one more."""

UNSETTLED = {"chan-sip-acl", "chan-sip-wrong-password-invite", "cs-acl-no-answer", "cs-invite-maddr"}
"""chan_sip has no notice of it, or one that an ESC can forge: the nonce on the wire or nobody settles it."""


@cache
def heard(capture: Capture) -> tuple[tuple[SecurityEvent, ...], ...]:
    """Give what each source tells of a recording: AMI, the security log, and the notices."""
    ami = AmiDecoder(SourceId("pbx", "ami"))
    events = [*ami.feed(BANNER + capture.ami.read_bytes(), 0.0), *ami.tick(1.0)]
    told = [tuple(event for event in events if isinstance(event, SecurityEvent))]
    for path in (capture.security_log, capture.messages_log):
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        readings = [*reader.feed(path.read_bytes(), 0.0), *reader.end(0.0)]
        told.append(tuple(reading.event for reading in readings if reading.event is not None))
    return tuple(told)


def wire_of(capture: Capture) -> list[Challenge]:
    """Give a challenge for each call that the true sender made, as PJSIP sends them."""
    here = ip_address("198.18.0.1")
    told = (event for story in heard(capture) for event in story)
    calls = {e.session for e in told if e.service is Service.PJSIP and e.remote.address == capture.source}
    return [Challenge(capture.source, 5062, here, 5060, call, b"n", capture.source) for call in sorted(calls)]


def judged(events: list[SecurityEvent], wire: list[Challenge] | None = None) -> list[Judgement]:
    """Give what becomes of what is told, where all is heard within a second."""
    detector = Detector(COUNTING, several=frozenset({"pbx"}))
    if wire is not None:
        detector.see(wire, 0.0, 0.0, "pbx")
    first = [detector.observe(event, 0.0) for event in events]
    return [j for j in (*first, *detector.tend(PATIENCE, wire=wire is not None)) if j is not None]


def counted(judgements: list[Judgement]) -> tuple[int, set[str]]:
    """Give how many attempts count, and of whom."""
    # Some of those who guess know a right password too, and are friends from then on.
    counting = [j.attempt for j in judgements if j.standing in {Standing.COUNTED, Standing.FRIEND}]
    return len(counting), {str(attempt.address) for attempt in counting}


def mixed(capture: Capture, lost: frozenset[int], seed: int) -> list[SecurityEvent]:
    """Mix the stories of the sources that are not lost, each in its own order."""
    stories = [list(story) for number, story in enumerate(heard(capture)) if number not in lost]
    order = [number for number, story in enumerate(stories) for _ in story]
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return [stories[number].pop(0) for number in order]


NUMBERED = [c for c in captures() if c.attempts and c.name not in UNSPEAKABLE]
PJSIP = [c for c in NUMBERED if any(e.service is Service.PJSIP for story in heard(c) for e in story)]
CHAN_SIP = [c for c in NUMBERED if c not in PJSIP]


@pytest.mark.parametrize("capture", PJSIP, ids=lambda capture: capture.name)
@given(
    seed=st.integers(0, 2**32),
    lost=st.frozensets(st.sampled_from([AMI, SECURITY, NOTICES]), max_size=2),
    wire=st.booleans(),
)
def test_any_interleaving_counts_the_same(
    capture: Capture, seed: int, lost: frozenset[int], *, wire: bool
) -> None:
    """However the stories of whoever is heard mix: the truth, where one is heard that can tell it."""
    name = capture.name
    able = {
        AMI: name not in SILENCED,
        SECURITY: name not in SILENCED,
        NOTICES: wire and name not in MUTE_NOTICES,
    }
    tellers = {source for source in able if able[source] and source not in lost}

    attempts, blamed = counted(judged(mixed(capture, lost, seed), wire_of(capture) if wire else None))

    assert blamed <= {str(capture.source)}
    twice = name in ANOTHER_CALL_ID and {AMI, SECURITY} <= tellers
    again = name in REPEATED and NOTICES in tellers
    one_less = name in UNCHALLENGED and tellers == {NOTICES}
    truth = (capture.attempts or 0) * (1 + twice) + again - one_less
    if tellers:
        assert attempts == truth
    else:
        assert attempts == 0


WHOLE = [c for c in PJSIP if c.name not in SILENCED | MUTE_NOTICES | REPEATED]


@pytest.mark.parametrize("capture", WHOLE, ids=lambda capture: capture.name)
@given(late=st.tuples(*[st.floats(0.0, 3.0)] * 3), data=st.data())
def test_neither_delay_nor_a_loss_changes_the_number(
    capture: Capture, late: tuple[float, float, float], data: st.DataObject
) -> None:
    """With each source up to 3 s late, and a block of one of them lost: the truth."""
    stories = [list(story) for story in heard(capture)]
    loser = data.draw(st.sampled_from([AMI, SECURITY, NOTICES]))
    start, end = sorted(data.draw(st.integers(0, len(stories[loser]))) for _ in range(2))
    del stories[loser][start:end]
    arrivals = sorted(
        (
            (position * 0.001 + delay, number, event)
            for number, (story, delay) in enumerate(zip(stories, late, strict=True))
            for position, event in enumerate(story)
        ),
        key=lambda arrival: arrival[:2],
    )
    detector = Detector(COUNTING, several=frozenset({"pbx"}))
    detector.see(wire_of(capture), 0.0, 0.0, "pbx")
    judgements: list[Judgement | None] = []
    for now, _, event in arrivals:
        judgements += [*detector.tend(now, wire=True), detector.observe(event, now)]
    judgements += detector.tend(5.0, wire=True)

    attempts, blamed = counted([j for j in judgements if j is not None])
    more = attempts - (capture.attempts or 0)
    assert more == 0 or (more == 1 and capture.name in CROSSED)
    assert blamed == {str(capture.source)}


@pytest.mark.parametrize("capture", CHAN_SIP, ids=lambda capture: capture.name)
@given(seed=st.integers(0, 2**32), lost=st.frozensets(st.sampled_from([AMI, SECURITY])))
def test_the_notices_settle_chan_sip(capture: Capture, seed: int, lost: frozenset[int]) -> None:
    """Whomever chan_sip's events blame, its notices name the true sender, and each attempt counts once."""
    attempts, blamed = counted(judged(mixed(capture, lost, seed)))

    assert attempts == (0 if capture.name in UNSETTLED else capture.attempts)
    assert blamed <= {str(capture.source)}


@pytest.mark.parametrize("capture", captures(), ids=lambda capture: f"{capture.group}/{capture.name}")
@given(seed=st.integers(0, 2**32), wire=st.booleans())
def test_nobody_else_is_blamed(capture: Capture, seed: int, *, wire: bool) -> None:
    """Whatever the recording, with the wire and without: only who sent it counts."""
    judgements = judged(mixed(capture, frozenset(), seed), wire_of(capture) if wire else None)

    assert counted(judgements)[1] <= {str(capture.source)}
    if wire:
        listed = {j.attempt.address for j in judgements if j.standing is Standing.WITHHELD}
        assert {a for a in listed if a != capture.source} <= {ip_address("203.0.113.9")}


@pytest.mark.parametrize("capture", captures(), ids=lambda capture: f"{capture.group}/{capture.name}")
def test_a_line_that_can_be_forged_blames_nobody_alone(capture: Capture) -> None:
    """PJSIP's notices alone never count, and chan_sip's events alone never do."""
    pjsip = [event for event in heard(capture)[NOTICES] if event.hearsay]
    chan_sip = [event for told in heard(capture)[:NOTICES] for event in told if event.service is Service.SIP]

    assert counted(judged(pjsip)) == counted(judged(chan_sip)) == (0, set())


def test_what_the_wire_knows_to_be_forged_is_not_even_listed() -> None:
    """A notice that no challenge backs names nobody; chan_sip's aimed event is its sender's own attempt."""
    forged = next(c for c in captures() if c.name == "esc-forges-notice")
    standings = {
        (str(j.attempt.address), j.standing) for j in judged(list(heard(forged)[2]), wire_of(forged))
    }
    assert standings == {("203.0.113.9", Standing.FORGED)}

    aimed = next(c for c in captures() if c.name == "chan-sip-via-maddr-forges-address")
    found = [j for j in judged(mixed(aimed, frozenset(), 1)) if j.standing is Standing.FORGED]
    assert {(str(j.attempt.address), str(j.attempt.aimed_at)) for j in found} == {
        (str(aimed.source), "203.0.113.9")
    }
