"""Recordings of real servers, told by several sources at once: the order changes nothing."""

import random
from functools import cache

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.support.captures import Capture, captures

from ringfence.detect.detector import PATIENCE, Detector, Standing
from ringfence.detect.rules import RULES
from ringfence.model import SecurityEvent, Service, SourceId
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.log import LogReader

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
NEVER = (evolve(RULES[0], attempts=1_000),)
SILENCED = {"call-id-not-utf8", "nonce-not-utf8", "esc-and-not-utf8"}
"""AMI and the security log tell nothing, or not all, of these."""

ANOTHER_CALL_ID = {"esc-forges-security"}
"""An ESC in the Call-ID makes the log show another one than AMI: two calls, as far as anybody can tell."""

TOLD = [c for c in captures() if c.attempts and c.name not in SILENCED and "16" not in c.group]


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


def counted(events: list[SecurityEvent]) -> tuple[int, set[str]]:
    """Give how many attempts count, and of whom, where all is heard within a second."""
    detector = Detector(NEVER, several=frozenset({"pbx"}))
    judged = [*(detector.observe(event, 0.0) for event in events), *detector.tend(PATIENCE)]
    counting = [j.attempt for j in judged if j is not None and j.standing is Standing.COUNTED]
    return len(counting), {str(attempt.address) for attempt in counting}


@pytest.mark.parametrize("capture", TOLD, ids=lambda capture: capture.name)
@given(seed=st.integers(0, 2**32), lost=st.sampled_from([(), (0,), (1,)]))
def test_any_interleaving_counts_the_same(capture: Capture, seed: int, lost: tuple[int, ...]) -> None:
    """However the sources' stories mix, and though one of the two that are trusted is silent: the truth."""
    stories = [list(story) for number, story in enumerate(heard(capture)) if number not in lost]
    order = [number for number, story in enumerate(stories) for _ in story]
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret

    attempts, blamed = counted([stories[number].pop(0) for number in order])

    assert blamed == {str(capture.source)}
    assert attempts == (capture.attempts or 0) * (2 if capture.name in ANOTHER_CALL_ID and not lost else 1)


@pytest.mark.parametrize("capture", captures(), ids=lambda capture: f"{capture.group}/{capture.name}")
def test_a_line_of_the_log_alone_blames_nobody(capture: Capture) -> None:
    """Notices, which can be forged, are listed and never count; nor does anything of chan_sip's."""
    story = [event for told in heard(capture)[2:] for event in told]
    chan_sip = [event for told in heard(capture) for event in told if event.service is Service.SIP]

    assert counted(story) == counted(chan_sip) == (0, set())
