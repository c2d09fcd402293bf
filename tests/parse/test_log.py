"""The reader of a log: lines as they come, what waits for what, and what is too much."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import FILES, SOURCE, samples
from tests.parse.worst import SECURITY, is_linear

from ringfence.model import SecurityEvent
from ringfence.parse.custom import Custom
from ringfence.parse.log import HOLD, LOG_CUT, MAX_LINE, LogReader
from ringfence.parse.reading import Alarm, LogCounts, Reading, Why

NOW = 1795154722.0
P = b"[2026-11-20 06:05:22] "
GUESS = P + b"NOTICE[1] chan_sip.c: Registration from '' failed for '192.0.2.7' - Wrong password\n"
OPEN = P + b"NOTICE[1] res_pjsip_session.c: a: Call (UDP:192.0.2.7:5060) to extension '1\n"
CLOSE = b"' rejected because extension not found in context 'public'.\n"
DUMP = P + b"ERROR[7] pjproject: \tx.c Error processing packet from 192.0.2.7:5060: x\n"
END = b"-- end of packet.\n"


def named(readings: list[Reading]) -> list[str]:
    """Give the addresses that are named."""
    return [str(reading.event.remote.address) for reading in readings if reading.event is not None]


def deadline(reader: LogReader) -> float | None:
    """Ask anew when a reader wants to be fed."""
    return reader.deadline


def test_a_line_is_read_when_it_ends() -> None:
    """Half a line is nothing yet; its end, or the end of the log, makes it one."""
    reader = LogReader(SOURCE)
    assert reader.feed(GUESS[:50], NOW) == []
    assert named(reader.feed(GUESS[50:] + GUESS[:-1], NOW)) == []
    assert named(reader.end(NOW)) == ["192.0.2.7", "192.0.2.7"]
    assert reader.counts == LogCounts(lines=2, events=2)


def test_a_message_waits_for_its_end() -> None:
    """What comes after an unfinished message waits with it, in order."""
    reader = LogReader(SOURCE)
    assert reader.feed(OPEN + GUESS, NOW) == []
    assert deadline(reader) == NOW + HOLD
    readings = reader.feed(CLOSE, NOW)
    assert [(reading.line, reading.why) for reading in readings] == [
        (1, None),
        (2, Why.CONTINUATION),
        (3, Why.CONTINUATION),
    ]
    assert deadline(reader) is None


def test_it_waits_no_longer_than_that() -> None:
    """At the deadline what waits is read as it is."""
    reader = LogReader(SOURCE)
    assert reader.feed(OPEN + GUESS, NOW) == []
    assert reader.feed(b"", NOW + HOLD / 2) == []
    assert named(reader.feed(b"", NOW + HOLD)) == ["192.0.2.7", "192.0.2.7"]
    assert deadline(reader) is None


def test_a_packet_waits_for_all_that_it_may_hold() -> None:
    """Behind a packet's end mark nothing is believed until another cannot come."""
    reader = LogReader(SOURCE)
    assert reader.feed(DUMP + b"x\n" + END + GUESS, NOW) == []
    readings = reader.feed(END, NOW) + reader.feed(b"", NOW + 1)
    assert named(readings) == []
    assert {reading.why for reading in readings} == {Why.RAW_DUMP}
    quiet = GUESS.replace(b"chan_sip.c", b"cdr.c")
    assert named(reader.feed(DUMP + b"x\n" + END + GUESS + quiet * 200, NOW + 2)) == ["192.0.2.7"]


@pytest.mark.parametrize("before", [LOG_CUT, LOG_CUT + len(P + b"NOTICE[1] chan_sip.c: ")])
def test_a_line_that_was_cut_is_two(before: int) -> None:
    """A message that lost its LF ends at Asterisk's limit, and the next one begins there and nowhere else."""
    head = P + b"NOTICE[1] chan_sip.c: Registration from '"
    for place, found in ((before, ["192.0.2.7"]), (before - 1, []), (100, [])):
        line = head + b"x" * (place - len(head)) + GUESS.replace(b"''", b"'" + b"y" * 9_000 + b"'")
        readings = LogReader(SOURCE).feed(line + GUESS, NOW)
        whole = [reading for reading in readings if reading.line == 1]
        assert named(whole)[-1:] == ["192.0.2.7"]  # the last address of a registration counts
        assert (len(whole), readings[-1].line) == (1 + bool(found), 2)


def test_two_places_for_a_cut_are_none() -> None:
    """Where a message seems to begin at both, the sender may have written one: nothing is cut."""
    head = P + b"NOTICE[1] chan_sip.c: "
    body = b"Registration from '".ljust(LOG_CUT - len(head), b"x")
    line = head + body + head.ljust(len(head), b"y") + GUESS
    assert [reading.line for reading in LogReader(SOURCE).feed(line, NOW)] == [1]


def test_a_log_that_is_opened_anew_takes_nothing_back() -> None:
    """What Asterisk writes at its start is no end of the message before, nor hides the end of one."""
    built = (
        b"Asterisk 22.1+dfsg built by nobody @ buildd on a x86_64 running Linux on 2026-07-20 21:35:32 UTC\n"
    )
    reader = LogReader(SOURCE)

    readings = reader.feed(GUESS + P + built + GUESS, NOW)
    assert named(readings) == ["192.0.2.7", "192.0.2.7"]
    assert [reading.why for reading in readings] == [None, Why.NO_PREFIX, None]
    assert [reading.alarm for reading in readings] == [None] * 3

    hidden = reader.feed(GUESS + P + built + b"the end of a message above\n", NOW)
    assert named(hidden) == []
    assert hidden[0].alarm is Alarm.TAMPERED
    assert named(reader.feed(GUESS + P + built.replace(b" UTC", b"'"), NOW)) == []


@pytest.mark.parametrize("piece", [1000, 10**9])
def test_a_line_that_is_too_long_is_skipped_and_counted(piece: int) -> None:
    """Nothing of it is kept, it has its number, and the next one is read."""
    data = b"x" * (MAX_LINE + 1) + b"\n" + GUESS
    reader = LogReader(SOURCE)
    readings = [one for at in range(0, len(data), piece) for one in reader.feed(data[at : at + piece], NOW)]
    assert [(reading.line, reading.why) for reading in readings] == [(1, Why.TOO_LONG), (2, None)]
    assert reader.counts == LogCounts(lines=2, events=1, garbled=1, dropped_bytes=MAX_LINE + 1)


def test_a_log_that_ends_in_a_line_too_long() -> None:
    """It is counted all the same."""
    reader = LogReader(SOURCE)
    assert reader.feed(b"x" * (MAX_LINE + 1), NOW) == []
    assert [reading.why for reading in reader.end(NOW)] == [Why.TOO_LONG]


@pytest.mark.parametrize("prefix", [b"", b"[sooner] "])
def test_a_line_without_date_is_of_now(prefix: bytes) -> None:
    """So is one whose date is none."""
    (reading,) = LogReader(SOURCE).feed(GUESS.replace(P, prefix), NOW + 5)
    assert reading.event is not None
    assert reading.event.time == NOW + 5


def test_the_administrators_own_lines() -> None:
    """They are read where no format of ours makes an event of them."""
    own = Custom.compile("Go away {address}", level="NOTICE", file="app_x.c", name="own")
    reader = LogReader(SOURCE, customs=[own])
    readings = reader.feed(P + b"NOTICE[1] app_x.c: Go away 192.0.2.9\n" + GUESS, NOW)
    assert named(readings) == ["192.0.2.9", "192.0.2.7"]


def test_tampering_is_counted() -> None:
    """An event that was taken back is an alarm, and one more that was tampered with."""
    reader = LogReader(SOURCE)
    readings = reader.feed(GUESS + b"x\n", NOW)
    assert (readings[0].event, readings[0].why, readings[0].alarm) == (
        None,
        Why.INSIDE_ANOTHER,
        Alarm.TAMPERED,
    )
    assert reader.counts == LogCounts(lines=2, tampered=1, garbled=1)


UNITS = {
    "unfinished calls": OPEN,
    "unfinished packets": DUMP,
    "packets": DUMP + END,
    "packets of two threads": DUMP + END + DUMP.replace(b"[7]", b"[8]"),
    "unfinished events": P + b"SECURITY[1] res_security_log.c: " + SECURITY + b"\n",
    "ends of events": b'oteAddress="x"\n',
    "events and ends": GUESS + b'oteAddress="x"\n',
    "empty lines": b"\n",
    "unfinished names": P + b"WARNING[1] Ext. x\n",
    "broken objects": b"{\n",
    "told sizes": P + b"VERBOSE[1] res_pjsip_logger.c: <--- Received SIP request (9000 bytes) from x\n",
}


@pytest.mark.parametrize("name", UNITS)
def test_the_worst_lines_take_linear_time(name: str) -> None:
    """Lines that all wait for others take time that grows with their number."""

    def read(data: bytes) -> None:
        reader = LogReader(SOURCE)
        for at in range(0, len(data), 65_536):
            reader.feed(data[at : at + 65_536], NOW)
        reader.end(NOW)

    assert is_linear(read, b"", UNITS[name], most=200_000)


LINES = st.sampled_from(
    [line + b"\n" for path in FILES for sample in samples(path) for line in sample.lines]
) | st.binary(max_size=20)


@given(st.lists(LINES, max_size=20), st.lists(st.integers(1, 400), max_size=20))
@settings(deadline=None)
def test_no_bytes_raise_and_each_line_has_its_number(lines: list[bytes], sizes: list[int]) -> None:
    """Lines of the corpus in any order, with anything between them, however they come."""
    data = b"".join(lines)
    reader = LogReader(SOURCE)
    readings, at = [], 0
    for size in [*sizes, len(data) + 1]:
        readings += reader.feed(data[at : at + size], NOW)
        at += size
    readings += reader.end(NOW)
    assert [reading.line for reading in readings] == list(
        range(1, data.count(b"\n") + bool(data[-1:].strip(b"\n")) + 1)
    )
    assert all(
        isinstance(reading.event, SecurityEvent) or reading.why or reading.alarm for reading in readings
    )
