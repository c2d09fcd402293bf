"""Relayed answers: an answer is relayed unless it has one Via in every reading."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.answers import is_relayed, received_address, received_by_chan_sip, received_by_pjsip

VIA = b"SIP/2.0/UDP 198.18.1.1:5099;rport=5099;received=198.18.1.1;branch=z9hG4bK1"


def answer(*lines: bytes) -> bytes:
    """Return an answer with these header lines and two more."""
    return b"\r\n".join([b"SIP/2.0 401 Unauthorized", *lines, b"Call-ID: a", b"To: <sip:v@h>", b"", b""])


@pytest.mark.parametrize(
    "line",
    [
        b"Via: " + VIA,
        b"v: " + VIA,
        b"VIA \t:" + VIA,
        b"Via: " + VIA + b';x="a,SIP/2.0/UDP h"',
        b"Via: " + VIA + b';x="a,b";y;z=;w=",";lr',
        b"Via: SIP / 2.0 / UDP h;branch=z",
    ],
)
def test_one_via_is_not_relayed(line: bytes) -> None:
    """In any spelling of its name, with commas in plain quoted values."""
    assert not is_relayed(answer(line))
    assert not is_relayed(answer(line) + b"\r\nVia: a body\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Via: " + VIA, b"Via: SIP/2.0/UDP h"],
        [b"Via: " + VIA, b"v: SIP/2.0/UDP h"],
        [b"v: " + VIA, b"VIA:SIP/2.0/UDP h"],
        [b"Via: " + VIA, b"To: x", b"vIa \t: SIP/2.0/UDP h"],
        [b"To: x", b"Via: " + VIA],
        [b"Via: " + VIA + b",SIP/2.0/UDP h"],
        [b"Via: " + VIA + b" , SIP/2.0/UDP h"],
        [b"Via: " + VIA + b',SIP/2.0/UDP h;x="a"'],
        [b"Via: " + VIA + b';x="a",SIP/2.0/UDP h;y="b"'],
        # Quotes that one parser opens and another does not.
        [b"Via: " + VIA + b';x="\\",SIP/2.0/UDP h;y="'],
        [b"Via: " + VIA + b';x="\\\\",SIP/2.0/UDP h;y="'],
        [b"Via: " + VIA + b';x=\\",SIP/2.0/UDP h;y="'],
        [b"Via: " + VIA + b';x=a"b,SIP/2.0/UDP h"'],
        [b"Via: " + VIA + b';x="a"b",SIP/2.0/UDP h;y=""'],
        [b"Via: " + VIA + b';x= "a,SIP/2.0/UDP h"'],
        [b"Via: " + VIA + b';"a,SIP/2.0/UDP h"'],
        [b"Via: " + VIA + b";x='a,SIP/2.0/UDP h'"],
        [b"Via: " + VIA + b";x=<a,SIP/2.0/UDP h>"],
        [b"Via: " + VIA + b";x=(a,SIP/2.0/UDP h)"],
        [b'Via: SIP/2.0/UDP "a;b=",SIP/2.0/UDP h;c="'],
        [b'Via: SIP/2.0/UDP ="a,SIP/2.0/UDP h"'],
        [b"Via: " + VIA + b';x="a,SIP/2.0/UDP h'],
        # Lines that one parser ends and another does not.
        [b"Via: " + VIA + b"\r\n ,SIP/2.0/UDP h"],
        [b"Via: " + VIA, b"\t;x"],
        [b"Via: " + VIA, b'From: "a\rVia: SIP/2.0/UDP h" <sip:a>'],
        [b"Via: " + VIA, b'From: "a\nVia: SIP/2.0/UDP h" <sip:a>'],
        [b"Via: " + VIA + b';x="\rVia: SIP/2.0/UDP h"'],
        [b"Via: " + VIA, b"\rVia: SIP/2.0/UDP h"],
    ],
)
def test_an_answer_that_any_proxy_may_forward_is_relayed(lines: list[bytes]) -> None:
    """A second Via in some reading of the head, or a missing Via."""
    assert is_relayed(answer(*lines))


def test_a_head_that_is_not_whole_is_relayed() -> None:
    """Byte by byte: a second Via may be in the missing part."""
    whole = answer(b"Via: " + VIA)
    assert not any(is_relayed(whole + rest) for rest in (b"", b"v", b"\r\n"))
    assert all(is_relayed(whole[:size]) for size in range(len(whole)))


@given(st.text(st.sampled_from('ab;=", \\\r\n\tvVia:')), st.text(st.sampled_from('ab;=", \\\r\n\tvia:')))
def test_a_second_via_is_never_hidden(before: str, behind: str) -> None:
    """In any text around it, a comma outside quotes and a header of that name make it relayed."""
    assume("\r\n" not in before and "\r\n" not in before.replace('"', ""))  # the head may end there
    line = b"Via: " + VIA + before.encode() + b"\r\nv: SIP/2.0/UDP h" + behind.encode()
    assert is_relayed(answer(line))
    outside = before.replace('"', "").encode() + b",SIP/2.0/UDP h" + behind.encode()
    assert is_relayed(answer(b"Via: " + VIA + outside))


@pytest.mark.parametrize(
    "unit", [b";x", b";x=", b';x=",', b'"', b"\r\n", b"\r\nVi", b"a", b"\\", b'="a"', b",", b" "]
)
def test_the_worst_head_takes_linear_time(unit: bytes) -> None:
    """A segment holds 64 kB of it."""

    def measure(size: int) -> float:
        return seconds(is_relayed, b"SIP/2.0 401 X\r\nVia: a" + unit * (size // len(unit)))

    assert is_linear_in(measure, 65_000)


def test_each_channel_driver_writes_received_in_its_own_way() -> None:
    """PJSIP's ``received`` is the last parameter of that name, chan_sip's the end before the first comma."""
    via = b"SIP/2.0/UDP h;received=203.0.113.9;x;received=198.19.200.7"
    assert str(received_by_pjsip(via + b";branch=z")) == "198.19.200.7"
    assert str(received_by_chan_sip(via + b";rport=5,;received=203.0.113.9")) == "198.19.200.7"
    assert received_by_chan_sip(via + b";branch=z") is None
    assert received_address(b"::ffff:198.19.200.7") == received_address(b"198.19.200.7")
    assert received_address(b"1.2") is None


_PARTS = [
    b'"',
    b"\\",
    b",",
    b";x=",
    b"=",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"v:",
    b"Via :",
    b'="a,b"',
    b"a",
]


def vias(head: bytes, ends: str, quoted: str) -> int:
    """Return how many Vias a parser sees that ends lines at ``ends`` and leaves ``quoted`` out."""
    unfolded = re.sub(f"(?:{ends})[ \t]+", " ", head.decode("latin-1"))
    values = [
        line.partition(":")[2] for line in re.split(ends, unfolded) if re.match(r"(?i)(via|v)\s*:", line)
    ]
    return sum(1 + re.sub(quoted, "", value).count(",") for value in values)


@given(st.lists(st.sampled_from(_PARTS)), st.lists(st.sampled_from(_PARTS)))
def test_no_parser_sees_another_via(behind: list[bytes], name: list[bytes]) -> None:
    """An answer that is not relayed has one Via, for each kind of line end and of quoting."""
    text = answer(b"Via: " + VIA + b"".join(behind), b'From: "' + b"".join(name) + b'" <sip:a@b>')
    if not is_relayed(text):
        head = text[: text.index(b"\r\n\r\n") + 2]
        for ends in ("\r\n", "\r?\n", "\r\n|\r|\n"):
            for quoted in ('"[^"]*"', r'"(?:[^"\\]|\\.)*"', '"[^"]*(?:"|$)'):
                assert vias(head, ends, quoted) == 1
