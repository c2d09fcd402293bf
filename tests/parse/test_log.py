"""The reader of a log: lines as they come, lines that wait for others, and the limits."""

import json
from datetime import timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import FILES, SOURCE, samples
from tests.parse.worst import SECURITY, is_linear

from ringfence.parse.custom import Custom
from ringfence.parse.line_result import LineResult, LogAlarm, LogCounts, Reason
from ringfence.parse.log import HOLD, MAX_LINE, LogReader
from ringfence.parse.log_messages import LOG_CUT, MAX_MESSAGE, MAX_TEXT
from ringfence.values.event import SecurityEvent

NOW = 1795154722.0
P = b"[2026-11-20 06:05:22] "
GUESS = P + b"NOTICE[1] chan_sip.c: Registration from '' failed for '192.0.2.7' - Wrong password\n"
OPEN = P + b"NOTICE[1] res_pjsip_session.c: a: Call (UDP:192.0.2.7:5060) to extension '1\n"
CLOSE = b"' rejected because extension not found in context 'public'.\n"
DUMP = P + b"ERROR[7] pjproject: \tx.c Error processing packet from 192.0.2.7:5060: x\n"
END = b"-- end of packet.\n"
CONSOLE = P + b"NOTICE[1]: chan_sip.c:1 f: Registration from '' failed for '192.0.2.7' - Wrong password\n"
READ = b"<--- SIP read from UDP:192.0.2.8:5060 --->\n"
SHOWN = b"<--- Received SIP request (8191 bytes) from UDP:192.0.2.8:5060 --->\n"
HEADERS = b"OPTIONS sip:x SIP/2.0\nVia: x\n"


def named(results: list[LineResult]) -> list[str]:
    """Return the addresses of the events."""
    return [str(result.event.remote.address) for result in results if result.event is not None]


def deadline(reader: LogReader) -> float | None:
    """Return the reader's deadline, read again."""
    return reader.deadline


def test_a_line_is_read_when_it_ends() -> None:
    """Half a line gives nothing; its end, or the end of the log, completes it."""
    reader = LogReader(SOURCE)
    assert reader.receive(GUESS[:50], NOW) == []
    assert named(reader.receive(GUESS[50:] + GUESS[:-1], NOW)) == []
    assert named(reader.end(NOW)) == ["192.0.2.7", "192.0.2.7"]
    assert reader.counts == LogCounts(lines=2, events=2)


def test_a_message_waits_for_its_end() -> None:
    """Lines after an unfinished message wait with it, in order."""
    reader = LogReader(SOURCE)
    assert reader.receive(OPEN + GUESS, NOW) == []
    assert deadline(reader) == NOW + HOLD
    results = reader.receive(CLOSE, NOW)
    assert [(result.line, result.reason) for result in results] == [
        (1, None),
        (2, Reason.CONTINUATION),
        (3, Reason.CONTINUATION),
    ]
    assert deadline(reader) is None


def test_it_waits_no_longer_than_that() -> None:
    """At the deadline the waiting lines are parsed as they are."""
    reader = LogReader(SOURCE)
    assert reader.receive(OPEN + GUESS, NOW) == []
    assert reader.receive(b"", NOW + HOLD / 2) == []
    assert named(reader.receive(b"", NOW + HOLD)) == ["192.0.2.7", "192.0.2.7"]
    assert deadline(reader) is None


def test_a_packet_waits_for_all_that_it_may_hold() -> None:
    """After a packet's end mark no line is trusted until a later mark is impossible."""
    reader = LogReader(SOURCE)
    assert reader.receive(DUMP + b"x\n" + END + GUESS, NOW) == []
    results = reader.receive(END, NOW) + reader.receive(b"", NOW + 1)
    assert named(results) == []
    assert {result.reason for result in results} == {Reason.RAW_DUMP}
    quiet = GUESS.replace(b"chan_sip.c", b"cdr.c")
    assert named(reader.receive(DUMP + b"x\n" + END + GUESS + quiet * 200, NOW + 2)) == ["192.0.2.7"]


@pytest.mark.parametrize("before", [LOG_CUT, LOG_CUT + len(P + b"NOTICE[1] chan_sip.c: ")])
def test_a_line_that_was_cut_is_two(before: int) -> None:
    """A message that lost its LF ends at Asterisk's limit, and the next one begins there and nowhere else."""
    head = P + b"NOTICE[1] chan_sip.c: Registration from '"
    for place, found in ((before, ["192.0.2.7"]), (before - 1, []), (100, [])):
        line = head + b"x" * (place - len(head)) + GUESS.replace(b"''", b"'" + b"y" * 9_000 + b"'")
        results = LogReader(SOURCE).receive(line + GUESS, NOW)
        whole = [result for result in results if result.line == 1]
        assert named(whole)[-1:] == ["192.0.2.7"]  # the last address of a registration counts
        assert (len(whole), results[-1].line) == (1 + bool(found), 2)


def test_two_possible_cuts_are_ambiguous() -> None:
    """If a message seems to begin at both, the sender may have written one: the line is not split."""
    head = P + b"NOTICE[1] chan_sip.c: "
    body = b"Registration from '".ljust(LOG_CUT - len(head), b"x")
    line = head + body + head.ljust(len(head), b"y") + GUESS
    assert [result.line for result in LogReader(SOURCE).receive(line, NOW)] == [1]


def test_a_reopened_log_revokes_nothing() -> None:
    """Asterisk's first line is no end of the message before, and hides no end."""
    built = (
        b"Asterisk 22.1+dfsg built by nobody @ buildd on a x86_64 running Linux on 2026-07-20 21:35:32 UTC\n"
    )
    reader = LogReader(SOURCE)

    results = reader.receive(GUESS + P + built + GUESS, NOW)
    assert named(results) == ["192.0.2.7", "192.0.2.7"]
    assert [result.reason for result in results] == [None, Reason.NO_PREFIX, None]
    assert [result.alarm for result in results] == [None] * 3

    hidden = reader.receive(GUESS + P + built + b"the end of a message above\n", NOW)
    assert named(hidden) == []
    assert hidden[0].alarm is LogAlarm.TAMPERED
    assert named(reader.receive(GUESS + P + built.replace(b" UTC", b"'"), NOW)) == []


@pytest.mark.parametrize("piece", [1000, 10**9])
def test_a_line_that_is_too_long_is_skipped_and_counted(piece: int) -> None:
    """Nothing of it is kept, it has its number, and the next one is parsed."""
    data = b"x" * (MAX_LINE + 1) + b"\n" + GUESS
    reader = LogReader(SOURCE)
    results = [one for at in range(0, len(data), piece) for one in reader.receive(data[at : at + piece], NOW)]
    assert [(result.line, result.reason) for result in results] == [(1, Reason.TOO_LONG), (2, None)]
    assert reader.counts == LogCounts(lines=2, events=1, garbled=1, dropped_bytes=MAX_LINE + 1)


def test_a_log_that_ends_in_a_line_too_long() -> None:
    """It is counted all the same."""
    reader = LogReader(SOURCE)
    assert reader.receive(b"x" * (MAX_LINE + 1), NOW) == []
    assert [result.reason for result in reader.end(NOW)] == [Reason.TOO_LONG]


@pytest.mark.parametrize("prefix", [b"", b"[sooner] "])
def test_a_line_without_a_date_gets_the_current_time(prefix: bytes) -> None:
    """A line without a valid date gets the current time."""
    (result,) = LogReader(SOURCE).receive(GUESS.replace(P, prefix), NOW + 5)
    assert result.event is not None
    assert result.event.time == NOW + 5


def test_the_administrators_own_lines() -> None:
    """They are parsed if no format of ours yields an event."""
    own = Custom.compile("Go away {address}", level="NOTICE", file="app_x.c", name="own")
    reader = LogReader(SOURCE, customs=[own])
    results = reader.receive(P + b"NOTICE[1] app_x.c: Go away 192.0.2.9\n" + GUESS, NOW)
    assert named(results) == ["192.0.2.9", "192.0.2.7"]


def test_tampering_is_counted() -> None:
    """A revoked event is an alarm, and counts as tampered."""
    reader = LogReader(SOURCE)
    results = reader.receive(GUESS + b"x\n", NOW)
    assert (results[0].event, results[0].reason, results[0].alarm) == (
        None,
        Reason.INSIDE_ANOTHER,
        LogAlarm.TAMPERED,
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
    "packets on a console": CONSOLE + SHOWN,
    "packets on a console with an end": CONSOLE + READ + b"<------->\n",
    "packets on a console without an end": CONSOLE + READ,
    "told sizes": P + b"VERBOSE[1] res_pjsip_logger.c: <--- Received SIP request (9000 bytes) from x\n",
}


@pytest.mark.parametrize("name", UNITS)
def test_the_worst_lines_take_linear_time(name: str) -> None:
    """Lines that all wait for others take time that grows with their number."""

    def read(data: bytes) -> None:
        reader = LogReader(SOURCE)
        for at in range(0, len(data), 65_536):
            reader.receive(data[at : at + 65_536], NOW)
        reader.end(NOW)

    assert is_linear(read, b"", UNITS[name], most=100_000)


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b'Executing [1@a:1] Dial("x", "y") in new stack\n', b"@a:1] A(\n"),
        (P + b"NOTICE[1]: Ext. 1:1 @ x: Rejecting unknown SIP connection from 192.0.2.7\n", b"from 1\n"),
    ],
    ids=["steps of a dialplan", "rejections"],
)
def test_lines_that_may_end_an_earlier_message_take_linear_time(head: bytes, unit: bytes) -> None:
    """Each of many short lines on a console may end the same message far above."""

    def read(data: bytes) -> None:
        reader = LogReader(SOURCE)
        reader.receive(CONSOLE + head + CONSOLE + data, NOW)
        reader.end(NOW)

    assert is_linear(read, b"", unit, most=MAX_MESSAGE * len(unit))


HEAD = P + (
    b'SECURITY[1] res_security_log.c: SecurityEvent="InvalidAccountID",'
    b'EventTV="2026-11-20T06:05:22.000+0000",Severity="Error",Service="SIP",EventVersion="1",AccountID="x'
)
TAIL = b'",SessionID="0x1",LocalAddress="IPV4/UDP/198.18.0.1/5060",RemoteAddress="IPV4/UDP/192.0.2.9/5060"'
EVENT = HEAD + TAIL + b"\n"
FAKE_END = b'",RemoteAddress="IPV4/UDP/192.0.2.66/1"\n'
FORGED = b"NOTICE[1] manager.c: 192.0.2.%d failed to authenticate as ''"
FORGED_EVENT = (
    HEAD.removeprefix(P) + b'",SessionID="",LocalAddress="",RemoteAddress="IPV4/UDP/192.0.2.67/1"\n'
)
HOSTILE = {
    "an account with a line feed": HEAD + b"\n" + FORGED % 1 + b"\n" + TAIL + b"\n",
    "two lines in an account": HEAD + b"\n" + FORGED % 1 + b"\n" + FORGED % 2 + b"\n" + TAIL + b"\n",
    "an imitated end": HEAD + FAKE_END + FORGED % 1 + b"\n" + TAIL + b"\n",
    "an imitated end and two lines": HEAD + FAKE_END + FORGED % 1 + b"\n" + FORGED % 2 + b"\n" + TAIL + b"\n",
    "an imitated end, and the true one in a line": HEAD + FAKE_END + FORGED % 1 + TAIL + b"\n",
}
WRAPPED = {
    "plain": EVENT,
    "call": EVENT.replace(b"[1]", b"[1][C-00000001]"),
    "syslog": b"Nov 20 06:05:22 pbx asterisk[7]: " + EVENT.removeprefix(P),
    "docker": b"pbx  | " + EVENT,
    "console": EVENT.removeprefix(P).replace(
        b"SECURITY[1] res_security_log.c:", b"SECURITY[1]: res_security_log.c:129 f:"
    ),
    "json-file": json.dumps({"log": EVENT.decode(), "stream": "stdout"}).encode() + b"\n",
    "journal": json.dumps(
        {"MESSAGE": EVENT.removeprefix(P).decode().strip(), "SYSLOG_IDENTIFIER": "asterisk"}
    ).encode()
    + b"\n",
    "json": json.dumps(
        {
            "timestamp": "Nov 20 06:05:22",
            "logmsg": {
                "location": {"filename": "res_security_log.c"},
                "level": "SECURITY",
                "message": EVENT.partition(b": ")[2].decode(),
            },
        }
    ).encode()
    + b"\n",
}


def skipping(*data: bytes) -> tuple[list[str], LogReader]:
    """Return the addresses that a reader finds in these bytes while it skips SECURITY messages."""
    reader = LogReader(SOURCE)
    reader.skips_security = True
    results = [result for piece in data for result in reader.receive(piece, NOW)]
    return named(results + reader.end(NOW)), reader


@pytest.mark.parametrize("name", WRAPPED)
def test_security_messages_are_skipped_and_the_others_are_read(name: str) -> None:
    """In any wrapper, its event is neither returned nor missing from the counts, and a NOTICE is returned."""
    line = WRAPPED[name]
    assert named(LogReader(SOURCE).receive(line, NOW)) == ["192.0.2.9"]
    names, reader = skipping(line + GUESS + line + GUESS)
    assert names == ["192.0.2.7", "192.0.2.7"]
    assert (reader.counts.lines, reader.counts.standby, reader.counts.events) == (4, 2, 2)


@pytest.mark.parametrize("size", [LOG_CUT, LOG_CUT + 1])
def test_a_line_that_asterisk_may_have_cut_is_not_skipped(size: int) -> None:
    """A longer line may hold the beginning of the next message; of the skipped ones the last is a sample."""
    line = EVENT.replace(b'"0x1"', b'"' + b"x" * (size - len(EVENT) + 4) + b'"')
    assert len(line) == size + 1
    reader = LogReader(SOURCE)
    reader.skips_security = True
    results = reader.receive(line, NOW)
    assert reader.counts.standby == 1
    assert ([one.reason for one in results], reader.sample) == (
        ([], line[:-1]) if size == LOG_CUT else ([Reason.STANDBY], None)
    )


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("skips", [False, True], ids=["primary", "standby"])
def test_no_line_of_an_account_is_a_message(name: str, skips: bool) -> None:  # noqa: FBT001
    """In any account with line feeds, no NOTICE inside it counts, and one before it does."""
    for data in ([GUESS + HOSTILE[name]], [GUESS, HOSTILE[name] + GUESS, EVENT]):
        reader = LogReader(SOURCE)
        reader.skips_security = skips
        results = [result for piece in data for result in reader.receive(piece, NOW)]
        names = {*named(results + reader.end(NOW))}
        # An event with an imitated end is returned before the rest is known; it is marked as tampered.
        assert names <= {"192.0.2.7", "192.0.2.9", *(() if skips else ("192.0.2.66",))}
        assert named(results)[0] == "192.0.2.7"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_skipped_message_includes_its_lines_byte_by_byte(name: str) -> None:
    """A message without an end waits for it at any split, also while SECURITY is skipped."""
    whole = HOSTILE[name] if "imitated" not in name else EVENT
    data = GUESS + whole + GUESS
    names, reader = skipping(*(data[at : at + 1] for at in range(len(data))))
    assert names == ["192.0.2.7", "192.0.2.7"]
    assert reader.counts.standby == 1


def test_a_line_after_a_skipped_message_revokes_no_earlier_notice() -> None:
    """The line is the rest of the skipped message, or of none."""
    assert skipping(GUESS + EVENT + b"x\n")[0] == ["192.0.2.7"]


def test_an_account_that_imitates_messages_hides_no_earlier_notice() -> None:
    """Events are revoked from the account's message on, also if it holds a second message."""
    data = GUESS + HEAD + FAKE_END + FORGED % 1 + b"\n" + FORGED_EVENT[:40] + b"\n" + TAIL + b"\n"
    for skips in (False, True):
        reader = LogReader(SOURCE)
        reader.skips_security = skips
        assert named(reader.receive(data, NOW)) == ["192.0.2.7"]


def test_a_fresh_reader_reads_the_same_log() -> None:
    """It has the source and the zone, and nothing of the earlier lines."""
    reader = LogReader(SOURCE, timezone=timezone(timedelta(hours=9)))
    reader.skips_security = True
    reader.receive(GUESS[:20], NOW)
    assert reader.waiting == 1
    fresh = reader.fresh()
    assert fresh.waiting == 0
    [guess] = fresh.receive(GUESS, NOW)
    assert guess.event is not None
    assert guess.event.time == NOW - 9 * 3_600
    assert named(fresh.receive(EVENT, NOW)) == ["192.0.2.9"]


LINES = st.sampled_from(
    [line + b"\n" for path in FILES for sample in samples(path) for line in sample.lines]
) | st.binary(max_size=20)


@given(st.lists(LINES, max_size=20), st.lists(st.integers(1, 400), max_size=20))
@settings(deadline=None)
def test_no_bytes_raise_and_each_line_has_its_number(lines: list[bytes], sizes: list[int]) -> None:
    """Lines of the corpus in any order, with anything between them, at any split."""
    data = b"".join(lines)
    reader = LogReader(SOURCE)
    results, at = [], 0
    for size in [*sizes, len(data) + 1]:
        results += reader.receive(data[at : at + size], NOW)
        at += size
    results += reader.end(NOW)
    assert [result.line for result in results] == list(
        range(1, data.count(b"\n") + bool(data[-1:].strip(b"\n")) + 1)
    )
    assert all(isinstance(result.event, SecurityEvent) or result.reason or result.alarm for result in results)


def test_a_line_beyond_the_limit_is_dropped_with_its_rest() -> None:
    """A line that is too long is dropped while it arrives, and the line after it is read."""
    reader = LogReader(SOURCE)
    assert reader.receive(b"x" * (MAX_LINE + 1), NOW) == []
    results = reader.receive(b"its rest\n" + GUESS, NOW)
    assert results[0].reason is Reason.TOO_LONG
    assert named(results) == ["192.0.2.7"]
    assert reader.counts.dropped_bytes == MAX_LINE + 1 + len(b"its rest")


def test_each_own_pattern_is_tried() -> None:
    """A message that the first pattern does not fit may fit the second one."""
    patterns = [
        Custom.compile(f"{word} {{address}}", level="NOTICE", file="app_x.c", name=word)
        for word in ("In", "Out")
    ]
    reader = LogReader(SOURCE, customs=patterns)
    results = [*reader.receive(P + b"NOTICE[1] app_x.c: Out 192.0.2.7\n", NOW), *reader.end(NOW)]
    assert named(results) == ["192.0.2.7"]


def test_a_json_notice_is_read_while_security_messages_are_skipped() -> None:
    """Asterisk's JSON lines of another level are read in standby."""
    line = WRAPPED["json"].replace(b"SECURITY", b"NOTICE").replace(b"res_security_log.c", b"chan_sip.c")
    message = json.loads(line)
    message["logmsg"]["message"] = GUESS.partition(b": ")[2].decode().strip()
    data = json.dumps(message).encode() + b"\n"
    assert skipping(data)[0] == ["192.0.2.7"]
    assert [result.level for result in LogReader(SOURCE).receive(data, NOW)] == ["NOTICE"]


def test_the_end_of_a_call_beyond_the_longest_message_is_not_its_end() -> None:
    """An unfinished call is given up after ``MAX_MESSAGE`` bytes, and a later end completes no event."""
    filler = (b"x" * 999 + b"\n") * (MAX_MESSAGE // 1_000 + 1)
    reader = LogReader(SOURCE)
    results = [*reader.receive(OPEN + filler + CLOSE, NOW), *reader.end(NOW)]
    assert named(results) == []
    assert named(reader.receive(GUESS, NOW)) == ["192.0.2.7"]


def test_an_end_far_behind_its_message_completes_no_event() -> None:
    """An end more than ``MAX_MESSAGE`` bytes behind its message is another text, and revokes it."""
    filler = (b"x" * 999 + b"\n") * (MAX_MESSAGE // 1_000 + 1)
    first = P + b"NOTICE[1] chan_iax2.c: No registration for peer 'a' (from 192.0.2.7)\n"
    for between, found in ((b"", ["192.0.2.9"]), (filler, [])):
        reader = LogReader(SOURCE)
        data = first + between + b"b' (from 192.0.2.9)\n"
        assert named([*reader.receive(data, NOW), *reader.end(NOW)]) == found


@pytest.mark.parametrize(("more", "found"), [(0, ["192.0.2.9"]), (1, [])])
def test_a_message_reaches_as_far_as_the_longest(more: int, found: list[str]) -> None:
    """The lines before the end of a message have ``MAX_MESSAGE`` bytes at most."""
    first = P + b"NOTICE[1] chan_iax2.c: No registration for peer 'a' (from 192.0.2.7)\n"
    filler = b"x" * (MAX_MESSAGE - len(first) - 1 + more) + b"\n"
    reader = LogReader(SOURCE)
    data = first + filler + b"b' (from 192.0.2.9)\n"
    assert named([*reader.receive(data, NOW), *reader.end(NOW)]) == found


def test_a_message_of_an_unknown_level_is_not_continued() -> None:
    """A line without a prefix after a JSON message of no level of Asterisk completes no event."""
    line = WRAPPED["json"].replace(b"SECURITY", b"FATAL")
    reader = LogReader(SOURCE)
    results = [*reader.receive(line + CLOSE + GUESS, NOW), *reader.end(NOW)]
    assert named(results) == ["192.0.2.7"]


def test_an_end_without_a_security_message_near_revokes_nothing() -> None:
    """A line that could end a SECURITY message revokes no event if no such message is within reach."""
    other = P + b"NOTICE[1] app_x.c: " + b"x" * 300 + b"\n"
    reader = LogReader(SOURCE)
    assert named(reader.receive(EVENT, NOW)) == ["192.0.2.9"]
    results = [*reader.receive(GUESS + other + TAIL + b"\n", NOW), *reader.end(NOW)]
    assert named(results) == ["192.0.2.7"]


@pytest.mark.parametrize(
    "call",
    [
        P + b'VERBOSE[1][C-1] pbx.c: Executing [x\n%b@public:1] Hangup("a", "") in new stack\n',
        P + b"WARNING[5][C-1] pbx.c: exten,priority=default,x\n%b,1\n",
        CONSOLE + b'    -- Executing [x\n%b@public:1] Hangup("a", "") in new stack\n',
    ],
)
@pytest.mark.parametrize(
    "packet", [b"<--- Received SIP r (8191 bytes)", SHOWN[:-1], SHOWN, b"<--- SIP read from ", READ]
)
def test_an_extension_hides_no_evidence(call: bytes, packet: bytes) -> None:
    """The line above a packet in an extension hides no message behind it, and no line waits for an end."""
    reader = LogReader(SOURCE)
    behind = CONSOLE if call.startswith(CONSOLE) else GUESS
    found = named(reader.receive(call.replace(b"%b", packet) + behind, NOW))
    for _ in range(100):
        found += named(reader.receive(behind * 10, NOW))
    assert len(found) == 1_001 + call.startswith(CONSOLE)
    assert reader.waiting == 0


def test_a_packet_of_chan_sip_revokes_what_it_holds() -> None:
    """Its end mark revokes the events since its first line, if that is near; no event before it."""
    forged = CONSOLE.replace(b"192.0.2.7", b"203.0.113.9")
    left = MAX_MESSAGE - len(READ + HEADERS + forged * 2)
    most = (b"x" * 999 + b"\n") * (left // 1_000) + b"x" * (left % 1_000 - 1) + b"\n"
    far = b"x: y\n" * MAX_MESSAGE
    for between, found in ((b"", 0), (most, 0), (b"x" + most, 2), (far, 2)):
        reader = LogReader(SOURCE)
        results = reader.receive(
            CONSOLE + READ + HEADERS + forged * 2 + between + b"<------->\n" + CONSOLE, NOW
        )
        names = named(results)
        assert (names.count("203.0.113.9"), names.count("192.0.2.7")) == (found, 2)
        assert reader.counts.tampered == 2 - found


def test_a_packet_on_a_console_waits_for_its_headers() -> None:
    """Text that may be a packet waits until its first lines show it, but not for long."""
    reader = LogReader(SOURCE)
    assert named(reader.receive(CONSOLE, NOW)) == ["192.0.2.7"]
    assert reader.receive(SHOWN, NOW) == []
    assert [result.reason for result in reader.receive(b"", NOW + 1)] == [Reason.NO_PREFIX]
    assert reader.receive(SHOWN + HEADERS + CONSOLE, NOW + 2) == []
    assert {result.reason for result in reader.receive(b"", NOW + 3)} == {Reason.RAW_DUMP}


def test_a_message_far_behind_an_open_one_keeps_its_own_end() -> None:
    """An end on a line with a prefix belongs to that line if a sender's text cannot reach it."""
    call = OPEN.replace(b"192.0.2.7", b"192.0.2.8")[:-1] + CLOSE
    quiet = P + b"NOTICE[1] cdr.c: " + b"x" * MAX_TEXT + b"\n"
    for between, found in ((b"", ["192.0.2.7"]), (quiet, ["192.0.2.7", "192.0.2.8"])):
        reader = LogReader(SOURCE)
        assert named(reader.receive(OPEN + between + call, NOW) + reader.end(NOW)) == found


def test_a_step_of_a_dialplan_with_a_prefix_ends_as_one_without() -> None:
    """A log of the format [plain] looks like a console's, and has the prefix before each step."""
    step = P + b"VERBOSE[1][C-1]: pbx.c:1 f: Executing [1\n" + CONSOLE
    for end, found in ((b'@public:1] NoOp("a", "") in new stack\n', []), (b"x\n", ["192.0.2.7"])):
        assert named(LogReader(SOURCE).receive(CONSOLE.replace(b".7", b".8") + step + end, NOW)) == [
            "192.0.2.8",
            *found,
        ]


def test_an_end_far_behind_a_call_revokes_nothing_on_a_console() -> None:
    """The rest of a dialplan's step stands within ``MAX_MESSAGE`` bytes of its beginning."""
    line = b"x" * 999 + b"\n"
    for between, found in ((b"", []), (line, []), (line * (MAX_MESSAGE // 1_000 + 1), ["192.0.2.7"])):
        data = b"    -- Executing [1\n" + between + CONSOLE + b'@public:1] NoOp("a", "") in new stack\n'
        assert named(LogReader(SOURCE).receive(data, NOW)) == found
