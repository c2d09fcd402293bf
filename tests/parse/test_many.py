"""Many lines at once: the same events as line by line, for any lines and at any split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import FILES, SOURCE, samples

from ringfence.model import SecurityEvent
from ringfence.parse.custom import Custom
from ringfence.parse.log import LogReader
from ringfence.parse.many import ManyReader

NOW = 1795154722.0
P = b"[2026-11-20 06:05:22] "
SAMPLES = [sample.data for path in FILES for sample in samples(path)]
DULL = P + b"VERBOSE[3][C-0000001f] pbx.c: Executing [100@public:1] Answer()\n"
REFUSED = (
    P + b"NOTICE[7] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '<sip:100@h>' failed for "
    b"'192.0.2.%d:5060' (callid: c%d) - No matching endpoint found\n"
)
SECURITY = (
    P + b'SECURITY[7] res_security_log.c: SecurityEvent="ChallengeResponseFailed",'
    b'EventTV="2026-11-20T06:05:22.461+0000",Severity="Error",Service="PJSIP",EventVersion="1",'
    b'AccountID="a%d",SessionID="s%d",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    b'RemoteAddress="IPV4/UDP/192.0.2.7/5060",Challenge="c",Response="r",ExpectedResponse=""\n'
)
GUESS = (
    P + b"NOTICE[1] chan_sip.c: Registration from '<sip:b%d@h>' failed for '192.0.2.%d' - Wrong password\n"
)
OPEN = P + b"NOTICE[1] res_pjsip_session.c: a: Call (UDP:192.0.2.9:5060) to extension '1\n"
DUMP = P + b"ERROR[7] pjproject: \tx.c Error processing packet from 192.0.2.9:5060: x\n"
END = b"-- end of packet.\n"
TAIL = b'x",LocalAddress="IPV4/UDP/198.18.0.1/5060",RemoteAddress="IPV4/UDP/192.0.2.9/5060"\n'

INSERTED = [
    b'"',
    b"'",
    b"\x1b",
    b"\r",
    b"\n",
    b"\x00",
    b"\xff",
    b"m",
    b" ",
    b'",SessionID="',
    b"' failed for '",
    b"]: ",
]


def run_of(line: bytes, number: int) -> bytes:
    """Return this many lines of a kind, each with other numbers."""
    return b"".join(line % ((n % 250,) * line.count(b"%d")) for n in range(number))


KINDS = st.sampled_from([DULL, REFUSED, SECURITY, GUESS])
RUNS = st.builds(run_of, KINDS, st.integers(1, 150))
SPOILED = st.builds(
    lambda line, at, what: line[: at % len(line)] + what + line[at % len(line) :],
    KINDS.map(lambda kind: run_of(kind, 1)),
    st.integers(0, 500),
    st.sampled_from(INSERTED),
)
ODD = st.sampled_from([OPEN, DUMP, END, TAIL, b"\n", b"x\n", b"{}\n", b"\x00\x00", P, *SAMPLES])
LOGS = st.lists(st.one_of(RUNS, RUNS, SPOILED, ODD), max_size=10).map(b"".join)


def line_by_line(data: bytes) -> list[SecurityEvent]:
    """Return the events from the reader of single lines."""
    reader = LogReader(SOURCE)
    results = reader.feed(data, NOW) + reader.end(NOW)
    return [result.event for result in results if result.event is not None]


def at_once(data: bytes, size: int = 256 * 1024) -> list[SecurityEvent]:
    """Return the events of data in pieces of ``size`` bytes."""
    reader = ManyReader(SOURCE)
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    told = [values for piece in pieces for values in reader.feed(piece, NOW)] + reader.end(NOW)
    assert reader.lines == data.count(b"\n") + (data[-1:] not in (b"\n", b""))
    return [SecurityEvent(*values) for values in told]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_message_of_the_corpus(path: object) -> None:
    """Each gives its result, alone and in the middle of ordinary lines."""
    for sample in samples(path):  # type: ignore[arg-type]
        assert at_once(sample.data) == line_by_line(sample.data)


@settings(deadline=None, max_examples=150)
@given(data=LOGS, size=st.sampled_from([1000, 20_000, 256 * 1024]))
def test_any_log_in_any_pieces(data: bytes, size: int) -> None:
    """Ordinary lines, hostile ones and their remains, in any order, give the same events."""
    assert at_once(data, size) == line_by_line(data)


def test_patterns_of_the_administrator() -> None:
    """With them a line that is otherwise never evidence is evidence."""
    custom = Custom.compile("Executing {any} from {address}, {any}", level="VERBOSE", file="pbx.c")
    data = (
        run_of(REFUSED, 200)
        + P
        + b"VERBOSE[3] pbx.c: Executing it from 192.0.2.77, sorry\n"
        + run_of(DULL, 9)
    )
    reader = ManyReader(SOURCE, customs=[custom])
    told = [SecurityEvent(*values) for values in reader.feed(data, NOW) + reader.end(NOW)]
    assert len(told) == 201
    assert str(told[-1].remote.address) == "192.0.2.77"


@pytest.mark.parametrize("size", [100_000, 256 * 1024])
def test_a_line_without_an_end(size: int) -> None:
    """A line beyond the limit is skipped, is not kept, and the lines around it are parsed."""
    long = P + b"NOTICE[1] x.c: " + b"x" * 3_000_000
    data = run_of(REFUSED, 100) + long + b"\n" + run_of(SECURITY, 100)
    assert at_once(data, size) == line_by_line(data)
    reader = ManyReader(SOURCE)
    for _ in range(50):
        assert reader.feed(b"x" * size, NOW) == []
        assert sum(len(kept) for kept in (reader._rest, *reader._pieces)) < 2_000_000
    assert reader.end(NOW) == []
    assert reader.lines == 1


def test_a_long_stretch_without_ordinary_lines() -> None:
    """A long stretch without ordinary lines is parsed completely, and little is kept."""
    data = (OPEN + b"' rejected because extension not found in context 'public'.\n") * 20_000
    reader = ManyReader(SOURCE)
    told = 0
    for at in range(0, len(data), 100_000):
        told += len(reader.feed(data[at : at + 100_000], NOW))
        assert reader._size < 1_300_000
    assert told + len(reader.end(NOW)) == len(line_by_line(data)) == 20_000


def test_files_end_where_they_end() -> None:
    """The end of a file ends its last message: the next file starts without it."""
    reader = ManyReader(SOURCE)
    half = run_of(SECURITY, 1)[:200]
    assert reader.feed(run_of(SECURITY, 3) + half, NOW) == []
    assert len(reader.end(NOW)) == 3
    assert len(reader.feed(run_of(SECURITY, 2), NOW) + reader.end(NOW)) == 2
    assert reader.lines == 6


def test_tampering_is_counted_among_ordinary_lines() -> None:
    """Text outside of Asterisk's grammar is counted among ordinary lines too."""
    reader = ManyReader(SOURCE)
    forged = run_of(SECURITY, 1).replace(b'AccountID="a0', b'AccountID="a",RemoteAddress="x')
    reader.feed(run_of(SECURITY, 100) + forged + run_of(SECURITY, 100), NOW)
    assert len(reader.end(NOW)) > 0
    assert reader.tampered == 1
