"""The administrator's own patterns: which fit, which are refused, and which addresses may be forged."""

import re
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.parse.worst import FILLERS, is_linear

from ringfence.parse.custom import Custom
from ringfence.parse.line_result import Reason
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, Transport


def read(pattern: str, message: bytes, file: bytes = b"app_x.c", wanted: str = "app_x.c") -> str:
    """Return the address that a pattern finds, with its port, or the reason why it finds none."""
    custom = Custom.compile(pattern, level="NOTICE", file=wanted, name="own")
    result = custom.parse(b"NOTICE", file, message, SOURCE, 1.0)
    return f"{result.remote.address} {result.remote.port}" if isinstance(result, SecurityEvent) else result


@pytest.mark.parametrize(
    ("pattern", "message", "found"),
    [
        ("{address}", b"192.0.2.7", "192.0.2.7 0"),
        ("{address}", b'"192.0.2.7:5060"', "192.0.2.7 5060"),
        ("Bad {address}", b"Bad 2001:db8::7", "2001:db8::7 0"),
        ("Bad {address}", b"Bad [2001:db8::7]:5060", "2001:db8::7 5060"),
        ("Bad {address}.", b"Bad 192.0.2.7.", "192.0.2.7 0"),
        ("{address}: bad", b"192.0.2.7: bad", "192.0.2.7 0"),
        ("{any} from {address}", b"x from y from 192.0.2.7", "192.0.2.7 0"),
        ("from {address} {any}", b"from 192.0.2.7 from 203.0.113.9 x", "192.0.2.7 0"),
        ("a{any}b{any}c {address} d{any}e{any}f", b"a1b2c 192.0.2.7 d3e4f", "192.0.2.7 0"),
        ("a.*b {address}", b"a.*b 192.0.2.7", "192.0.2.7 0"),
    ],
)
def test_patterns_that_fit(pattern: str, message: bytes, found: str) -> None:
    """Words are literal, {any} is any text, and the address is at its position in the pattern."""
    assert read(pattern, message) == found


def test_an_event_of_a_pattern() -> None:
    """The event has the pattern's name and the address of the line, and names no account and no session."""
    custom = Custom.compile("Bad {address}", level="NOTICE", file="app_x.c", name="own")
    remote = Endpoint(ip_address("192.0.2.7"), 5060, Transport.UNKNOWN)
    kind, service = EventKind.FAILED_ACL, Service.DIALPLAN
    event = SecurityEvent(SOURCE, kind, service, remote, 1.0, account="", session=b"", acl_name="own")
    assert custom.parse(b"NOTICE", b"app_x.c", b"Bad 192.0.2.7:5060", SOURCE, 1.0) == event


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("Bad {address}", b"Bad host.example.com"),
        ("Bad {address}", b"Bad 192.0.2.7 x"),
        ("Bad {address}", b"x Bad 192.0.2.7"),
        ("Bad {address}", b"Bad 192.0.2.700"),
        ("a{any}b {address}", b"b a 192.0.2.7"),
        ("{address} b{any}a", b"192.0.2.7 a b"),
        ("a{any}b{any}c {address}", b"a c 192.0.2.7"),
        ("{address} d{any}e{any}f", b"192.0.2.7 d f"),
        ("aa{any}aa {address}", b"aaa 192.0.2.7"),
    ],
)
def test_patterns_that_do_not_fit(pattern: str, message: bytes) -> None:
    """The pattern is the whole message, and the address is valid."""
    assert read(pattern, message) == Reason.NOT_EVIDENCE


def test_two_possible_addresses_are_ambiguous() -> None:
    """If {any} on both sides leaves more than one address, the sender may have written one of them."""
    message = b"x from 203.0.113.9 to y from 192.0.2.7 to z"
    assert read("{any} from {address} to {any}", message) == Reason.AMBIGUOUS


@pytest.mark.parametrize(
    ("wanted", "message", "found"),
    [
        ("Ext. s", b's: "Bad 192.0.2.7"', "192.0.2.7 0"),
        ("Ext. s", b"s:7 @ from-outside: Bad 192.0.2.7", "192.0.2.7 0"),
        ("Ext. s", b"t: Bad 192.0.2.7", Reason.NOT_EVIDENCE),
        ("Ext. s", b"s Bad 192.0.2.7", Reason.NOT_EVIDENCE),
        ("Ext.", b"100: Bad 192.0.2.7", "192.0.2.7 0"),
        ("Ext.", b"1" + b": x" * 16 + b": Bad 192.0.2.7", Reason.NOT_EVIDENCE),
        ("Ext.", b"1: Bad 203.0.113.9: Bad 192.0.2.7", "192.0.2.7 0"),
        ("", b"100: Bad 192.0.2.7", "192.0.2.7 0"),
        ("app_x.c", b"100: Bad 192.0.2.7", Reason.NOT_EVIDENCE),
    ],
)
def test_dialplan_lines(wanted: str, message: bytes, found: str) -> None:
    """The extension stands before the message: a configured one, or any, which the caller chose."""
    assert read("Bad {address}", message, b"Ext.", wanted) == found


def test_an_extension_cannot_forge_an_address() -> None:
    """If the message may begin at two positions with two addresses, none is returned."""
    message = b"1: Bad 203.0.113.9 x: Bad 192.0.2.7 y"
    assert read("Bad {address} {any}", message, b"Ext.", "Ext.") == Reason.AMBIGUOUS


def test_a_pattern_is_of_the_dialplans_notices_if_it_names_nothing_else() -> None:
    """Without a level, a file and a name it matches what ``Log(NOTICE,…)`` writes at any extension."""
    event = Custom.compile("Bad {address}").parse(b"NOTICE", b"Ext.", b"100: Bad 192.0.2.7", SOURCE, 1.0)
    assert isinstance(event, SecurityEvent)
    assert (str(event.remote.address), event.acl_name) == ("192.0.2.7", "custom")


@pytest.mark.parametrize(("pattern", "forgeable"), [("{any}: {address}", True), ("Bad {address}", False)])
def test_a_message_that_may_be_cut_is_forgeable_behind_any_text(pattern: str, *, forgeable: bool) -> None:
    """A sender's text may end with the address before the cut; the pattern's own words do not."""
    event = Custom.compile(pattern, file="a.c").parse(
        b"NOTICE", b"a.c", pattern.format(any="x", address="192.0.2.7").encode(), SOURCE, 1.0, may_be_cut=True
    )
    assert isinstance(event, SecurityEvent)
    assert event.forgeable is forgeable


def test_level_and_file_are_the_pattern_s() -> None:
    """A message of another level or another file does not match."""
    custom = Custom.compile("{address}", level="WARNING", file="a.c")
    assert custom.parse(b"NOTICE", b"a.c", b"192.0.2.7", SOURCE, 1.0) is Reason.NOT_EVIDENCE
    assert custom.parse(b"WARNING", b"b.c", b"192.0.2.7", SOURCE, 1.0) is Reason.NOT_EVIDENCE


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "the pattern needs {address} exactly once"),
        ("x", "the pattern needs {address} exactly once"),
        ("{address}{address}", "the pattern needs {address} exactly once"),
        ("{any}{address}", "{any} cannot touch {address}: put the words between them"),
        ("{address}{any}", "{any} cannot touch {address}: put the words between them"),
        ("{address}\n", "the pattern is one line"),
    ],
)
def test_invalid_patterns_are_refused(pattern: str, message: str) -> None:
    """One {address}, words between it and each {any}, one line."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Custom.compile(pattern)


@pytest.mark.parametrize("filler", FILLERS)
def test_the_worst_text_takes_linear_time(filler: bytes) -> None:
    """With any number of {any}s, a message is scanned once."""
    custom = Custom.compile("a{any}'{any}b{any}' {address} x{any} {any}y", level="", file="a.c")
    assert is_linear(lambda text: custom.parse(b"NOTICE", b"a.c", text, SOURCE, 0.0), b"a'b", filler)


@given(st.text(st.sampled_from("ab: {}"), max_size=6), st.text(st.sampled_from("ab1. "), max_size=30))
@settings(deadline=None)
def test_no_pattern_and_no_text_raise(words: str, message: str) -> None:
    """Every valid pattern accepts any text."""
    try:
        custom = Custom.compile(words + "{any} {address}", level="", file="")
    except ValueError:
        return
    assert isinstance(custom.parse(b"X", b"a.c", message.encode(), SOURCE, 0.0), SecurityEvent | Reason)


@pytest.mark.parametrize(
    ("pattern", "file", "forgeable"),
    [
        ("Rejected {address}", "Ext.", False),
        ("Rejected {address} at the gate", "Ext. s", False),
        ("Rejected {address} from us", "a.c", False),
        ("Rejected {address} from us", "Ext.", True),
        ("{any} is rejected: {address} from us", "a.c", True),
        ("{any} is rejected: {address} for {any}", "a.c", True),
        ("{any} called from {address} for {any}", "a.c", False),
        ("{any} is rejected: {address}.", "a.c", False),
    ],
)
def test_a_pattern_knows_whether_an_escape_could_hide_its_address(
    pattern: str, file: str, *, forgeable: bool
) -> None:
    """An ESC before the address removes all text up to the next m, which must come before the address."""
    assert Custom.compile(pattern, file=file).forgeable is forgeable
