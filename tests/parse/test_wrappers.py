"""The additions of others to the lines of a log: containers, the journal, syslog, and terminals."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.parse.worst import is_linear

from ringfence.parse.line_result import LineResult, LogCounts, Reason
from ringfence.parse.log import LogReader
from ringfence.parse.wrappers import CleanLine, Form, JsonMessage, LineCleaner

NOW = 1795154722.0
CALL = (
    b"NOTICE[45]: res_pjsip_session.c:4039 new_invite:  anonymous: Call (UDP:192.0.2.7:5071) to extension "
    b"'900' rejected because extension not found in context 'from-sip-external'."
)
DATED = b"[2026-11-20 06:05:22] " + CALL


def read(*lines: bytes) -> tuple[list[LineResult], LogCounts]:
    """Return the results of a log's lines, and its counts."""
    reader = LogReader(SOURCE)
    results = reader.receive(b"".join(line + b"\n" for line in lines), NOW) + reader.end(NOW)
    return results, reader.counts


def clean(line: bytes) -> object:
    """Return a line without what was added to it."""
    return LineCleaner().clean(line)


@pytest.mark.parametrize(
    "added",
    [
        b"dec 14 12:19:53 pbx asterisk[16272]: ",
        "déc. 14 12:19:53 pbx asterisk[1]: ".encode(),
        "дек 14 12:19:53 pbx asterisk[1]: ".encode(),
        "12月 14 12:19:53 pbx asterisk[1]: ".encode(),
        b"14 Dez 12:19:53 pbx freepbx[1432]: ",
        b"ven. 2026-11-20 10:00:01 CET pbx asterisk[12]: ",
        b"Nov 20 10:00:01 pbx freepbx[1432]: ",
        b"Nov 20 10:00:01 freepbx[1432]: ",
        b"Nov 20 10:00:01 pbx my-pbx_1[99]: ",
        b"Nov 20 10:00:01 pbx 3f2a9c81d0ab[99]: ",
        b"Nov 20 10:00:01 pbx docker/my-pbx[99]: ",
        b"Nov 20 10:00:01 ",
        b"freepbx[1432]: ",
        b"<30>1 2026-11-20T10:00:01.123456+00:00 pbx freepbx[12]: ",
        b"<30>1 2026-11-20T10:00:01.123456+00:00 pbx freepbx 12 - - ",
        b"<133>1 2026-11-20T10:00:01Z pbx asterisk 12 - - ",
        b"[    5.123456] pbx asterisk[12]: ",
        b"1795154722.365000 pbx my-pbx[1]: ",
        b"@4000000065a5c0de12345678 ",
        b"[pod/asterisk-0/asterisk] ",
        b"pbx_asterisk.1.abc@node1    | ",
        b"\x1b[36masterisk-1  | \x1b[0m",
        b"2026-11-20T10:00:01.1Z stdout F ",
        b"pbx*CLI> \r\x1b[0K",
        b"\r\x1b[0K",
        b"MESSAGE=",
        b"Nov 20 10:00:01 host podman[1]: asterisk-1  | ",
    ],
)
def test_added_text_is_removed(added: bytes) -> None:
    """Asterisk's own line is left, and the lines between its messages revoke nothing."""
    assert clean(added + DATED) == DATED
    console = added + b"  == Using SIP RTP CoS mark 5"
    results, counts = read(added + DATED, console, added + DATED + b"\r", added, added + DATED)
    assert counts == LogCounts(lines=len(results), events=3)


@pytest.mark.parametrize(
    "line",
    [
        b"Nov 20 06:05:22 pbx freepbx[1]: " + CALL,
        b"dec 14 06:05:22 pbx freepbx[1]: " + CALL,
        b"Nov 20 06:05:22 pbx sshd[1]: " + DATED,
        b"Nov 20 06:05:22 pbx postfix/smtpd[1]: " + DATED,
        b"Nov 20 06:05:22 pbx sshd-session[1]: " + DATED,
        b"Nov 20 06:05:22 pbx myapp[1]: " + DATED,
        b"myapp[1]: " + DATED,
        b"1795154722.365000 pbx myapp: 06:05:22 " + DATED,
        b"x " + DATED,
    ],
)
def test_text_of_other_programs_begins_no_message(line: bytes) -> None:
    """A name counts only if it is Asterisk's, or has its word and stands before Asterisk's own date."""
    results, counts = read(line)
    assert counts.events == 0
    assert results[0].reason is Reason.NO_PREFIX


@pytest.mark.parametrize("end", [b"\r", b" ", b"\t \r", b"#012", b"#015#012", b"\r\r"])
def test_the_end_of_a_line_is_removed(end: bytes) -> None:
    """CR, blanks and escaped line ends are no part of the last word."""
    login = b"[2026-11-20 06:05:22] NOTICE[1] manager.c: 192.0.2.6 failed to authenticate as 'admin'"
    (result,), _ = read(login + end)
    assert result.event is not None
    assert result.event.account == "admin"


def test_a_login_on_a_terminal_counts_once() -> None:
    """The second message about a login is recognised, also with CR LF."""
    head = b"[2026-11-20 06:05:22] NOTICE[1]: manager.c:2368 authenticate: 192.0.2.6 "
    pair = (
        head + b"tried to authenticate with nonexistent user 'x'\r",
        head + b"failed to authenticate as 'x'\r",
    )
    results, counts = read(*pair)
    assert (counts.events, results[1].reason) == (1, Reason.DUPLICATE)


def test_two_blanks_after_the_date_are_still_a_prefix() -> None:
    """A line that somebody has aligned is read as Asterisk wrote it."""
    assert read(DATED.replace(b"] N", b"]  N"))[1].events == 1


def test_the_time_of_a_wrapper_is_used_if_asterisk_wrote_none() -> None:
    """Docker's and the journal's times become the message's date."""
    docker = {"log": CALL.decode() + "\r\n", "time": "2026-11-20T06:05:22.365Z"}
    assert clean(json.dumps(docker).encode()) == b"[2026-11-20T06:05:22.365Z] " + CALL
    assert clean(json.dumps(docker | {"time": 1}).encode()) == CALL
    journal = {
        "SYSLOG_IDENTIFIER": "asterisk",
        "__REALTIME_TIMESTAMP": "1795154722365000",
        "MESSAGE": CALL.decode(),
    }
    assert clean(json.dumps(journal).encode()) == b"[1795154722.365000] " + CALL
    cleaner = LineCleaner()
    assert cleaner.clean(b"MESSAGE=" + CALL) == CALL
    assert cleaner.clean(b"__REALTIME_TIMESTAMP=1795154722365000") == b"__REALTIME_TIMESTAMP=1795154722365000"
    assert cleaner.clean(b"MESSAGE=" + CALL) == b"[1795154722.365000] " + CALL
    cleaner.clean(b"__REALTIME_TIMESTAMP=x")
    assert cleaner.clean(b"MESSAGE=" + CALL) == CALL


def test_the_journals_export_is_read() -> None:
    """A message with colours has its length before it; all other fields are foreign lines."""
    fields = b"__REALTIME_TIMESTAMP=1795154722365000\nSYSLOG_IDENTIFIER=pbx"
    text = b"\x1b[0;37m" + DATED
    binary = b"MESSAGE\n" + struct.pack("<Q", len(text)) + text
    _, counts = read(fields, b"MESSAGE=" + DATED, b"_PID=1", b"", fields, binary, b"_PID=1", b"", fields)
    assert (counts.events, counts.tampered) == (2, 0)


def test_a_container_in_the_journal_is_read() -> None:
    """Its entries have its own name, and those of other programs are foreign."""
    names: list[dict[str, str]] = [
        {"SYSLOG_IDENTIFIER": "my-pbx"},
        {"CONTAINER_NAME": "my-pbx"},
        {"SYSLOG_IDENTIFIER": "CRON"},
        {},
    ]
    texts = DATED.decode() + "\r\n", DATED.decode(), "(root) CMD (x)", "y"
    entries = zip(names, texts, strict=True)
    lines = [json.dumps({"MESSAGE": text, **name}).encode() for name, text in entries]
    results, counts = read(*lines)
    assert [result.event is not None for result in results] == [True, True, False, False]
    assert counts.tampered == 0


def test_asterisks_json_inside_a_wrapper_is_read() -> None:
    """A message of the formatter is found behind docker's wrapper and a prefix; its text is like a file's."""
    location = {"filename": "Ext. 100", "function": "@ public", "line": 1}
    message = '"Rejecting unknown SIP connection from 192.0.2.7:5060"\n'
    inner = json.dumps(
        {"timestamp": "t", "logmsg": {"location": location, "level": "WARNING", "message": message}}
    )
    wanted = JsonMessage(
        b"t", b"WARNING", b"Ext.", b'100: "Rejecting unknown SIP connection from 192.0.2.7:5060"'
    )
    for line in (inner, json.dumps({"log": inner + "\r\n"}), "asterisk-1  | " + inner):
        assert clean(line.encode()) == wanted


def test_a_few_wrappers_are_removed() -> None:
    """A line in more wrappers than logs have begins no message."""
    assert clean(4 * b"asterisk-1  | " + DATED) == DATED
    assert clean(5 * b"asterisk-1  | " + DATED) == b"asterisk-1  | " + DATED


def test_json_of_others_is_foreign() -> None:
    """An object that is no message revokes nothing, in a log of objects."""
    wrapped = json.dumps({"log": DATED.decode()}).encode()
    results, counts = read(wrapped, b'{"level": "info"}', wrapped)
    assert (counts.events, counts.tampered, results[1].reason) == (2, 0, Reason.NO_PREFIX)


@pytest.mark.parametrize("end", [b"", b"\r"])
def test_a_packet_on_a_console_is_no_evidence(end: bytes) -> None:
    """Lines inside a packet that a console shows without a prefix give nothing; those around it count."""
    forged = DATED.replace(b"192.0.2.7", b"203.0.113.9")
    body = [b"INVITE sip:x SIP/2.0\r", b"Via: x\r", b"\r", forged]
    size = sum(len(line) + 1 for line in body) - 1
    head = b"<--- Received SIP request (%d bytes) from UDP:192.0.2.8:5060 --->" % size
    results, counts = read(*(line + end for line in (DATED, head, *body, DATED)))
    assert (counts.events, counts.tampered) == (2, 0)
    assert results[-1].event is not None


def test_the_first_message_shows_the_form_of_a_log() -> None:
    """Its prefix and its objects; NULs and colours before it name no program."""
    fields = [b"__REALTIME_TIMESTAMP=1795154722365000", b"MESSAGE=" + DATED]
    journal = json.dumps({"MESSAGE": DATED.decode(), "SYSLOG_IDENTIFIER": "pbx"}).encode()
    for lines, form in (
        ([b"x", DATED, b"asterisk: " + DATED], Form(is_console=True)),
        ([b"\x00\x00" + DATED], Form(is_console=True)),
        ([b"asterisk: " + DATED], Form(is_console=True, is_shared=True, is_named=True)),
        (fields, Form(is_console=True, is_shared=True)),
        ([journal], Form(1, is_console=True, is_shared=True, is_named=True)),
        ([b"[2026-11-20 06:05:22] NOTICE[1] manager.c: x"], Form()),
    ):
        cleaner = LineCleaner()
        for line in lines:
            cleaner.clean(line)
        assert cleaner.form == form


def test_the_lost_bytes_of_a_line_are_known() -> None:
    """The size of a packet is that before its lines were cleaned."""
    line = clean(b"Via: x\r")
    assert isinstance(line, CleanLine)
    assert (line, line.lost, line.is_foreign) == (b"Via: x", 1, False)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_raise(line: bytes) -> None:
    """Any line has a clean form, which is not longer than the line and a date."""
    found = clean(line)
    assert isinstance(found, JsonMessage) or (isinstance(found, bytes) and len(found) <= len(line) + 50)


@pytest.mark.parametrize(
    "filler",
    [
        b" ",
        b"\r",
        b"#012",
        b"\x00",
        b"\x1b[0m",
        b"MESSAGE=",
        b"a | ",
        b"asterisk: ",
        b"a ",
        b"1:",
        b"x",
        b'{"log":"',
    ],
)
def test_it_takes_linear_time(filler: bytes) -> None:
    """Only the beginning and the end of a long line are examined."""
    assert is_linear(clean, b"", filler)


def test_a_message_that_rsyslog_repeats_counts_each_time() -> None:
    """Of equal messages rsyslog writes the first one, and then one line with their number."""
    head = b"Nov 20 06:05:22 pbx asterisk[812]: "
    guess = (
        b"NOTICE[901]: chan_sip.c:29060 in handle_request_register: Registration from "
        b"'\"201\" <sip:201@pbx>' failed for '203.0.113.8:5071' - Wrong password"
    )
    results, counts = read(head + guess, head + b"message repeated 4 times: [ " + guess + b"]")
    assert (counts.events, counts.tampered) == (5, 0)
    assert {result.event.account for result in results if result.event is not None} == {"201"}


@pytest.mark.parametrize("host", [b"pbx", b"asterisk", b"asterisk-01", b"asterisk.example.org", b"docker"])
def test_the_name_of_a_host_is_no_program(host: bytes) -> None:
    """Lines of other programs revoke nothing, whatever the host is called."""
    head = b"Nov 20 06:05:22 " + host + b" "
    guess = (
        b"[2026-11-20 06:05:22] NOTICE[901] chan_sip.c: Registration from '\"201\" <sip:201@pbx>' "
        b"failed for '203.0.113.8:5071' - Wrong password"
    )
    other = head + b"sshd[2300]: Connection closed by 192.0.2.77 port 4242 [preauth]"
    _, counts = read(head + b"asterisk: " + guess, other, head + b"asterisk: " + guess, other)
    assert (counts.events, counts.tampered) == (2, 0)

    other = b"<30>1 2026-11-20T06:05:22Z " + host + b" sshd 2300 - - Connection closed by 192.0.2.77"
    first = b"<133>1 2026-11-20T06:05:22Z " + host + b" asterisk 12 - - " + guess
    _, counts = read(first, other, first, other)
    assert (counts.events, counts.tampered) == (2, 0)

    head = b"2026-11-20T06:05:22.123456+00:00 " + host + b" "  # rsyslog in Debian 12
    other = head + b"sshd[2300]: Connection closed by 192.0.2.77 port 4242 [preauth]"
    _, counts = read(head + b"asterisk[12]: " + guess, other, head + b"asterisk[12]: " + guess, other)
    assert (counts.events, counts.tampered) == (2, 0)


def test_a_date_before_a_line_without_a_program_names_none() -> None:
    """With the dates of a container's log, text that looks like a program's may be a caller's."""
    stamp = b"2026-11-20T06:05:22.123456Z "
    guess = (
        b"[2026-11-20 06:05:22] NOTICE[901] chan_sip.c: Registration from '\"201\" <sip:201@pbx>' "
        b"failed for '203.0.113.8:5071' - Wrong password"
    )
    _, counts = read(stamp + guess, stamp + b"pbx sshd[2300]: the rest of a message")
    assert (counts.events, counts.tampered) == (0, 1)
