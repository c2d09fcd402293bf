"""The table of formats: each parses its messages only, never raises, and takes linear time."""

import json
import re
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import FILES, SOURCE, samples
from tests.parse.worst import FILLERS, HEADS, is_linear
from tests.support.fail2ban import PYTHON, environment, tree, why_no_fail2ban

from ringfence.parse.formats import FORMATS, SUSPICIOUS
from ringfence.parse.line_result import LogAlarm, OpenMessage, Reason
from ringfence.parse.log import LogReader
from ringfence.values.event import SecurityEvent

PIECES = st.sampled_from([*HEADS, *FILLERS, b"192.0.2.7", b"[2001:db8::7]:5060", b"Wrong password", b"' - "])


@pytest.mark.parametrize("file", FORMATS, ids=str)
def test_the_worst_text_takes_linear_time(file: bytes) -> None:
    """A quarter of a megabyte of any text, after any head, is parsed in time that grows with its length."""
    parse = FORMATS[file].parse
    slow = [
        (head, filler)
        for head in HEADS
        for filler in FILLERS
        if not is_linear(lambda text: parse(text, SOURCE, 0.0), head, filler)
    ]
    assert slow == []


@given(st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))
@settings(deadline=None)
def test_no_bytes_raise(text: bytes) -> None:
    """Every format returns for any bytes an event, a reason, an alarm, or an open message."""
    for form in FORMATS.values():
        assert isinstance(form.parse(text, SOURCE, 0.0), SecurityEvent | Reason | LogAlarm | OpenMessage)


@pytest.mark.parametrize("filler", FILLERS)
def test_the_search_for_suspicious_words_is_linear(filler: bytes) -> None:
    """A message of unknown wording is searched once."""
    assert is_linear(SUSPICIOUS.search, b"", filler)


_WITHOUT_FAIL2BAN = pytest.mark.skipif(bool(why_no_fail2ban()), reason=why_no_fail2ban())


@_WITHOUT_FAIL2BAN
def test_every_expression_of_fail2bans_filter_matches_a_line_that_is_read(tmp_path: Path) -> None:
    """The corpus has a line for each expression of fail2ban's filter for Asterisk, and it is parsed."""
    read = [
        line
        for file in FILES
        for sample in samples(file)
        for line, expected in zip(sample.lines, sample.yields, strict=True)
        if expected.startswith("kind=")
    ]
    log = tmp_path / "read.log"
    log.write_bytes(b"\n".join([*read, b""]))
    done = subprocess.run(
        [
            *(PYTHON, str(tree() / "usr/bin/fail2ban-regex"), "--raw"),
            *("-c", str(tree() / "etc/fail2ban"), str(log), "asterisk"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    table = done.stdout.partition("Failregex: ")[2].partition("Ignoreregex: ")[0]
    hits = [int(hit) for hit in re.findall(r"^\|\s+\d+\) \[(\d+)\]", table, re.MULTILINE)]
    assert len(hits) >= 8
    assert 0 not in hits


@_WITHOUT_FAIL2BAN
def test_every_line_that_fail2ban_is_tested_with_is_read() -> None:
    """The result is the address that fail2ban bans for the line."""
    lines = (tree() / "usr/lib/python3/dist-packages/fail2ban/tests/files/logs/asterisk").read_bytes()
    expected: dict[str, object] = {}
    read = 0
    for line in lines.split(b"\n"):
        if line.startswith(b"# failJSON: "):
            expected = json.loads(line.partition(b": ")[2])
        elif line and not line.startswith(b"#"):
            reader = LogReader(SOURCE)
            [reading] = reader.receive(line + b"\n", 0.0) + reader.end(0.0)
            assert reading.event is not None, line
            assert reading.event.remote.address == ip_address(str(expected["host"])), line
            read += 1
    assert read >= 46
