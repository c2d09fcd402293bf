"""The recorded logs, read and folded: what each log tells is what was done, and only the sender is blamed.

Some logs cannot carry a scenario; why is said here, scenario by scenario.
"""

from collections import Counter
from pathlib import Path

import pytest
from tests.support.captures import FORGED, Capture, captures

from ringfence.detect.fold import Fold
from ringfence.model import Address, SecurityEvent, SourceId
from ringfence.parse.log import LogReader
from ringfence.parse.reading import Alarm, Reading

NOW = 1795154400.0

# chan_sip believes a Via `maddr`: its events name the stranger, and its NOTICE lines the sender.
MADDR = {"chan-sip-via-maddr-forges-address", "cs-invite-maddr", "cs-guest-invite-maddr"}

SECURITY_TELLS = {
    # A byte that is not UTF-8 in the Call-ID or the nonce: no security event at all.
    "call-id-not-utf8": 0,
    "nonce-not-utf8": 0,
    "esc-and-not-utf8": 0,
}
MESSAGES_TELL = {
    # A failed INVITE names no source in chan_sip's log.
    "chan-sip-wrong-password-invite": 0,
    "cs-invite-maddr": 0,
    # Two addresses in one line: nobody can say which one is the sender's.
    "display-name-forges-address": 0,
    "nul-and-call-id": 0,
    "esc-forges-security": 0,
    # The lines have no session and half an attempt each: an odd one is rounded up once, not each time.
    "cs-acl-no-answer": 2,
    # The lines have no challenge and no response, by which a datagram that was sent twice is known.
    "retransmitted-answer": 2,
    # The lines have no ChallengeSent, which ends the last of many probes under one Call-ID.
    "parallel-probes-one-call-id": 59,
}
# An ESC in the display name and an `m` in the Call-ID leave a line that names the stranger alone.
FORGED_NOTICE = {"esc-forges-notice": 2, "esc-and-not-utf8": 2}


def read(path: Path) -> list[Reading]:
    """Give what becomes of a recorded log."""
    reader = LogReader(SourceId("pbx", f"log:{path.name}"))
    return reader.feed(path.read_bytes(), NOW) + reader.end(NOW)


def blamed(path: Path) -> Counter[Address]:
    """Give how many attempts of whom a log tells, by itself."""
    fold = Fold()
    events = [reading.event for reading in read(path) if reading.event is not None]
    attempts = [fold.feed(event, event.time) for event in events]
    return Counter(attempt.address for attempt in attempts if attempt is not None)


def expected(capture: Capture, tells: dict[str, int], culprit: Address) -> Counter[Address]:
    """Give what a log should tell of a scenario."""
    number = tells.get(capture.name, capture.attempts)
    return Counter({culprit: number}) if number else Counter()


COUNTED = [capture for capture in captures() if capture.attempts is not None]


@pytest.mark.parametrize("capture", COUNTED, ids=str)
def test_the_security_log_tells_what_was_done(capture: Capture) -> None:
    """As many attempts as were made, by who made them; chan_sip's events follow a Via maddr."""
    culprit = FORGED if capture.name in MADDR else capture.source
    assert blamed(capture.security_log) == expected(capture, SECURITY_TELLS, culprit)


@pytest.mark.parametrize("capture", COUNTED, ids=str)
def test_the_messages_log_tells_what_was_done(capture: Capture) -> None:
    """As many attempts as were made, by who made them, from NOTICE lines alone."""
    if capture.name in FORGED_NOTICE:
        assert blamed(capture.messages_log) == Counter({FORGED: FORGED_NOTICE[capture.name]})
    else:
        assert blamed(capture.messages_log) == expected(capture, MESSAGES_TELL, capture.source)


@pytest.mark.parametrize("capture", captures(), ids=str)
def test_nobody_else_is_named(capture: Capture) -> None:
    """Every event of both logs is the sender's, but for what no reader of text can undo."""
    named = {
        path.suffixes[-2]: {
            reading.event.remote.address for reading in read(path) if reading.event is not None
        }
        for path in (capture.security_log, capture.messages_log)
    }
    assert named[".security"] <= ({FORGED} if capture.name in MADDR else {capture.source})
    assert named[".messages"] <= ({FORGED} if capture.name in FORGED_NOTICE else {capture.source})


def test_the_two_witnesses_of_one_file_are_told_apart() -> None:
    """SECURITY lines and NOTICE lines in one file are two sources, each with all attempts of its own."""
    capture = next(one for one in captures() if one.name == "unknown-account-register")
    reader = LogReader(SourceId("pbx", "log:full"))
    data = capture.security_log.read_bytes() + capture.messages_log.read_bytes()
    events: dict[str, list[SecurityEvent]] = {}
    for reading in reader.feed(data, NOW):
        if reading.event is not None:
            events.setdefault(str(reading.event.source), []).append(reading.event)
    assert {name: len(told) for name, told in events.items()} == {
        "pbx/log:full#security": 12,
        "pbx/log:full#notice": 9,
    }


def test_a_silenced_event_raises_an_alarm() -> None:
    """Each event that was not raised leaves an error, and each error is an alarm."""
    capture = next(one for one in captures() if one.name == "call-id-not-utf8")
    alarms = Counter(reading.alarm for reading in read(capture.messages_log))
    assert alarms == Counter({Alarm.SILENCED: 6, None: 3})


@pytest.mark.parametrize("capture", captures(), ids=str)
def test_pieces_change_nothing(capture: Capture) -> None:
    """Read in pieces of 1000 bytes, a log gives the same readings as at once."""
    for path in (capture.security_log, capture.messages_log):
        data = path.read_bytes()
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        pieces = [reader.feed(data[at : at + 1000], NOW) for at in range(0, len(data), 1000)]
        assert [reading for piece in pieces for reading in piece] + reader.end(NOW) == read(path)
