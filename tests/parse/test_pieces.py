"""Lines that the log of a container cuts into pieces: only the first piece of a line begins a message."""

import json
from collections.abc import Callable, Iterable

import pytest
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import LineResult
from ringfence.parse.log import LogReader
from ringfence.parse.wrappers import CleanLine, Form, LineCleaner

NOW = 1795154722.0
PIECE = 16 * 1024
P = b"[2026-11-20 06:05:22] "
HONEST = P + b"NOTICE[1]: manager.c:1 authenticate: 192.0.2.7 failed to authenticate as 'x'"
LOGIN = b"NOTICE[1]: manager.c:1 authenticate: 203.0.113.9 failed to authenticate as 'x'"
SECURITY = (
    b'SECURITY[1]: res_security_log.c:1 f: SecurityEvent="InvalidPassword",'
    b'EventTV="2026-11-20T06:05:22.000+0000",Severity="Error",Service="PJSIP",EventVersion="2",'
    b'AccountID="204",SessionID="x",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    b'RemoteAddress="IPV4/UDP/203.0.113.9/5060",Challenge="",ReceivedChallenge="",ReceivedHash=""'
)
FORGED = [
    P + LOGIN,
    LOGIN,
    P + SECURITY,
    b"asterisk[9]: " + P + LOGIN,
    b"\x1b[0K" + P + LOGIN,
    b"\x1b[1;33m" + P + LOGIN,
    b"pbx  | pbx  | \x1b[0K" + P + LOGIN,
    b"MESSAGE=" + P + LOGIN,
    json.dumps({"log": (P + LOGIN).decode() + "\n", "stream": "stderr"}).encode(),
]
LONG = (P + b"VERBOSE[1]: a.c:1 f: ").ljust(PIECE, b"x")

Wrap = Callable[..., bytes]


def docker(text: bytes, *, last: bool = True, err: bool = False) -> bytes:
    """Return a line, or a piece of one, as Docker's json-file has it."""
    log, stream = text.decode() + "\n" * last, "stderr" if err else "stdout"
    return json.dumps({"log": log, "stream": stream, "time": "2026-11-20T06:05:22.365Z"}).encode() + b"\n"


def cri(text: bytes, *, last: bool = True, err: bool = False) -> bytes:
    """Return a line, or a piece of one, as podman's k8s-file and containerd have it."""
    stream = b"stderr" if err else b"stdout"
    return b"2026-11-20T06:05:22.365000000+00:00 %s %s %s\n" % (stream, b"F" if last else b"P", text)


def journal(text: bytes, *, last: bool = True, err: bool = False) -> bytes:
    """Return a line, or a piece of one, as ``journalctl -o json`` shows it for a container."""
    entry = {
        "__REALTIME_TIMESTAMP": "1795154722365000",
        "SYSLOG_IDENTIFIER": "my-asterisk",
        "PRIORITY": "3" if err else "6",
        "MESSAGE": text.decode(),
    }
    return json.dumps(entry | ({} if last else {"CONTAINER_PARTIAL_MESSAGE": "true"})).encode() + b"\n"


WRAPS = pytest.mark.parametrize("wrap", [docker, cri, journal])


def read(parts: Iterable[bytes], *, skips: bool = False) -> list[LineResult]:
    """Return the results of a log that comes in these parts."""
    reader = LogReader(SOURCE)
    reader.skips_security = skips
    return [result for part in parts for result in reader.receive(part, NOW)] + reader.end(NOW)


def addresses(results: Iterable[LineResult]) -> list[str]:
    """Return the addresses of the events."""
    return [str(result.event.remote.address) for result in results if result.event is not None]


@WRAPS
@pytest.mark.parametrize("forged", FORGED)
def test_a_piece_that_continues_a_line_begins_no_message(wrap: Wrap, forged: bytes) -> None:
    """Whatever it looks like: in the second piece and in the third, whole, by lines and byte by byte."""
    ends = [(wrap(forged),), (wrap(b"y" * PIECE, last=False), wrap(forged)), (wrap(forged, last=False),)]
    for end in ends:
        parts = [wrap(HONEST), wrap(LONG, last=False), *end]
        data = b"".join(parts)
        for cut in ([data], parts, [bytes([byte]) for byte in data]):
            results = read(cut)
            assert (len(results), addresses(results)) == (len(parts), ["192.0.2.7"])
            results = read(cut, skips=True)
            assert (len(results), addresses(results)) == (len(parts), ["192.0.2.7"])


@WRAPS
def test_the_line_after_the_last_piece_begins_a_message(wrap: Wrap) -> None:
    """So do the lines of another stream in between, which end no line of the first one."""
    lines = [wrap(HONEST), wrap(LONG, last=False), wrap(b"y"), wrap(HONEST)]
    assert addresses(read(lines)) == ["192.0.2.7", "192.0.2.7"]
    other = wrap(HONEST, err=True)
    lines = [wrap(HONEST), wrap(LONG, last=False), other, other, wrap(P + LOGIN), wrap(HONEST)]
    assert addresses(read(lines)) == 4 * ["192.0.2.7"]


@WRAPS
def test_a_piece_is_no_end_of_a_message_of_another_stream(wrap: Wrap) -> None:
    """An event that a piece of another line may end is forgeable."""
    message = P + SECURITY.partition(b",Challenge")[0].replace(b"InvalidPassword", b"InvalidAccountID")
    other = message.replace(b"203.0.113.9", b"192.0.2.7")
    lines = [wrap(HONEST), wrap(LONG, last=False), wrap(other, err=True), wrap(message)]
    events = [result.event for result in read([b"".join(lines)]) if result.event is not None]
    found = [(str(event.remote.address), event.forgeable) for event in events]
    assert found == [("192.0.2.7", False), ("203.0.113.9", True)]
    assert addresses(read(lines)) == 2 * ["192.0.2.7"]


@pytest.mark.parametrize("wrap", [cri, journal])
def test_the_first_piece_of_a_line_may_end_within_text(wrap: Wrap) -> None:
    """However short it is, an address at its end may be a sender's text, also where a cut line is split."""
    cut = (P + b"NOTICE[1]: manager.c:1 f: x").ljust(8191, b"x")
    for head in (b"", cut):
        lines = [wrap(HONEST), wrap(head + P + SECURITY, last=False), wrap(b"y")]
        events = [result.event for result in read(lines) if result.event is not None]
        assert [event.forgeable for event in events] == [False, True]


@pytest.mark.parametrize("wrap", [cri, journal])
def test_a_message_in_pieces_is_joined(wrap: Wrap) -> None:
    """Any line of podman is cut where a read ends; the message's address may then be in the second piece."""
    line = P + SECURITY
    for cut in (line.index(b'4",Session'), line.index(b"Remote")):
        pieces = wrap(line[:cut], last=False) + wrap(line[cut:])
        assert addresses(read([wrap(HONEST), pieces])) == ["192.0.2.7", "203.0.113.9"]


def test_a_line_without_a_line_feed_is_no_piece_of_docker_if_it_is_short() -> None:
    """Docker's pieces have 16 KiB; other programs that write a ``log`` leave out the LF of each line."""
    assert addresses(read([docker(HONEST, last=False), docker(HONEST, last=False)])) == 2 * ["192.0.2.7"]
    for size, count in ((PIECE - 1, 2), (PIECE, 1)):
        lines = [docker(HONEST), docker(LONG[:size], last=False), docker(HONEST)]
        assert len(addresses(read(lines))) == count


def test_docker_counts_the_bytes_of_a_piece() -> None:
    """A character may have several."""
    text = P + b"VERBOSE[1]: a.c:1 f: " + "\u00e4".encode() * (PIECE // 2)
    assert addresses(read([docker(HONEST), docker(text, last=False), docker(P + LOGIN)])) == ["192.0.2.7"]


def test_a_rotation_between_two_pieces_ends_no_line() -> None:
    """The new file goes on with the rest of the line; a fresh reader is told so."""
    for wrap in (docker, cri, journal):
        reader = LogReader(SOURCE)
        reader.receive(wrap(HONEST) + wrap(LONG, last=False), NOW)
        reader.end(NOW)
        fresh = reader.fresh(reader.open_streams)
        assert addresses(reader.receive(wrap(P + LOGIN) + wrap(HONEST), NOW)) == ["192.0.2.7"]
        assert addresses(fresh.receive(wrap(P + LOGIN) + wrap(HONEST), NOW)) == ["192.0.2.7"]
        assert not reader.open_streams


def test_a_piece_that_continues_a_line_does_not_show_the_form_of_a_log() -> None:
    """The first message does, and it begins a line."""
    cleaner = LineCleaner([b"stdout"])
    line = cleaner.clean(cri(P + b"NOTICE[1] manager.c: x").removesuffix(b"\n"))
    assert isinstance(line, CleanLine)
    assert (line, line.is_piece, cleaner.form) == (b" " + P + b"NOTICE[1] manager.c: x", True, None)
    cleaner.clean(cri(HONEST).removesuffix(b"\n"))
    assert cleaner.form == Form(is_console=True, is_shared=True)


def test_text_of_a_sender_opens_no_line() -> None:
    """In a file it is no container's, and in a container's log only the container's own marks count."""
    marks = [cri(b"x", last=False), docker(b"x" * PIECE, last=False), journal(b"x", last=False)]
    for mark in marks:
        assert addresses(read([HONEST + b"\n", mark, HONEST + b"\n"])) == 2 * ["192.0.2.7"]
        for wrap in (docker, cri, journal):
            assert addresses(read([wrap(HONEST), wrap(mark[:-1]), wrap(HONEST)])) == 2 * ["192.0.2.7"]


def test_the_number_of_open_streams_is_bounded() -> None:
    """Of many the latest are known, and each only once."""
    cleaner = LineCleaner()
    for name in [*range(1_000), 999, 998]:
        entry = {"MESSAGE": "x", "SYSLOG_IDENTIFIER": str(name), "CONTAINER_PARTIAL_MESSAGE": "true"}
        cleaner.clean(json.dumps(entry).encode())
    assert len(cleaner.open_streams) == 64
    assert cleaner.open_streams[-3:] == (b"997 ", b"999 ", b"998 ")
