"""The recorded logs, parsed and folded: each log reports what was done, and names only the sender.

Some logs cannot show a scenario. The reasons are listed here, scenario by scenario.
"""

from collections import Counter
from pathlib import Path

from tests.support.captures import FORGED, Capture, captures

from ringfence.detect.sessions import Role, Senders, role_of
from ringfence.parse.line_result import LineResult, LogAlarm
from ringfence.parse.log import LogReader
from ringfence.values.event import SecurityEvent, SourceId
from ringfence.values.network import Address

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
    # Two addresses in one line: either may be the sender's.
    "display-name-forges-address": 0,
    "nul-and-call-id": 0,
    "esc-forges-security": 0,
    # The lines have no session and half an attempt each: an odd number is rounded up once, not each time.
    "cs-acl-no-answer": 2,
    # The lines have no challenge and no response, by which a repeated datagram is recognised.
    "retransmitted-answer": 2,
    # The lines have no ChallengeSent, which ends the last of many probes under one Call-ID.
}
# An ESC in the display name and an `m` in the Call-ID leave a line that names only the other address.
FORGED_NOTICE = {"esc-forges-notice": 2, "esc-and-not-utf8": 2}


def read(path: Path) -> list[LineResult]:
    """Return the results of a recorded log."""
    reader = LogReader(SourceId("pbx", f"log:{path.name}"))
    return reader.receive(path.read_bytes(), NOW) + reader.end(NOW)


def attempts_by_address(path: Path) -> Counter[Address]:
    """Return the number of attempts of each address in a log."""
    senders = Senders()
    found = [result.event for result in read(path) if result.event is not None]
    events = [event for event in found if role_of(event) is not Role.QUESTION]
    attempts = [senders.report(event, event.time) for event in events]
    return Counter(attempt.address for attempt in attempts if attempt is not None)


def expected(capture: Capture, reports: dict[str, int], culprit: Address) -> Counter[Address]:
    """Return the attempts that a log should show for a scenario."""
    number = reports.get(capture.name, capture.attempts)
    return Counter({culprit: number}) if number else Counter()


def test_the_security_log_reports_the_attempts() -> None:
    """It shows as many attempts as were made, by their senders; chan_sip's events follow a Via maddr."""
    for capture in captures():
        if capture.attempts is not None:
            culprit = FORGED if capture.name in MADDR else capture.source
            wanted = expected(capture, SECURITY_TELLS, culprit)
            assert attempts_by_address(capture.security_log) == wanted, capture


def test_the_messages_log_reports_the_attempts() -> None:
    """It shows as many attempts as were made, by their senders, from NOTICE lines alone."""
    for capture in captures():
        if capture.attempts is not None:
            wanted = expected(capture, MESSAGES_TELL, capture.source)
            if capture.name in FORGED_NOTICE:
                wanted = Counter({FORGED: FORGED_NOTICE[capture.name]})
            assert attempts_by_address(capture.messages_log) == wanted, capture


def test_only_the_sender_is_named() -> None:
    """Every event of both logs is the sender's, except those that no parser of text can correct."""
    for capture in captures():
        security, messages = (
            {result.event.remote.address for result in read(path) if result.event is not None}
            for path in (capture.security_log, capture.messages_log)
        )
        assert security <= ({FORGED} if capture.name in MADDR else {capture.source}), capture
        assert messages <= ({FORGED} if capture.name in FORGED_NOTICE else {capture.source}), capture


def test_one_file_has_two_sources() -> None:
    """SECURITY lines and NOTICE lines in one file are two sources, each with all attempts of its own."""
    capture = next(one for one in captures() if one.name == "unknown-account-register")
    reader = LogReader(SourceId("pbx", "log:full"))
    data = capture.security_log.read_bytes() + capture.messages_log.read_bytes()
    events: dict[str, list[SecurityEvent]] = {}
    for result in reader.receive(data, NOW):
        if result.event is not None:
            events.setdefault(str(result.event.source), []).append(result.event)
    assert {name: len(told) for name, told in events.items()} == {
        "pbx/log:full#security": 12,
        "pbx/log:full#notice": 9,
    }


def test_a_silenced_event_raises_an_alarm() -> None:
    """Each event that was not raised leaves an error, and each error is an alarm."""
    capture = next(one for one in captures() if one.name == "call-id-not-utf8")
    alarms = Counter(result.alarm for result in read(capture.messages_log))
    assert alarms == Counter({LogAlarm.SILENCED: 6, None: 3})


def test_pieces_change_nothing() -> None:
    """Parsed in pieces of 1000 bytes, a log gives the same results as at once."""
    for path in (path for one in captures() for path in (one.security_log, one.messages_log)):
        data = path.read_bytes()
        reader = LogReader(SourceId("pbx", f"log:{path.name}"))
        pieces = [reader.receive(data[at : at + 1000], NOW) for at in range(0, len(data), 1000)]
        assert [result for piece in pieces for result in piece] + reader.end(NOW) == read(path), path
