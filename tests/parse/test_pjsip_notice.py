"""Messages of res_pjsip: the sender's text around the address (the corpus has pjsip.txt)."""

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import OpenMessage, Reason
from ringfence.parse.notices import parse_distributor, parse_session
from ringfence.values.event import UNNAMED, SecurityEvent
from ringfence.values.fast import evolve

PLANTS = st.sampled_from(
    [
        b"' failed for '203.0.113.9:5060' (callid: ",
        b"' failed for '",
        b"' (callid: ",
        b") - Failed to authenticate",
        b"' from '",
        b"203.0.113.9:5060",
        b"'",
        b"(UDP:203.0.113.9:5060) to extension '",
        b": Call ",
    ]
)
TEXT = st.lists(PLANTS | st.binary(max_size=3), max_size=6).map(b"".join)


@given(TEXT, TEXT, TEXT)
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_a_request_names_its_sender_or_none(method: bytes, header: bytes, session: bytes) -> None:
    """The sender's address is among the readings, or no address is, for any method, From and Call-ID."""
    line = b"Request '%s' from '%s' failed for '192.0.2.7:5060' (callid: %s) - No matching endpoint found"
    result = parse_distributor(line % (method, header, session), SOURCE, 0.0)
    if isinstance(result, SecurityEvent):
        named = [reading.remote.address for reading in result.readings or (result,)]
        assert ip_address("192.0.2.7") in named
        assert named == [ip_address("192.0.2.7")] or result.readings


@given(TEXT)
@settings(deadline=None)
def test_a_call_names_its_sender(extension: bytes) -> None:
    """The sender's address is found, whatever was dialled."""
    end = b"' rejected because extension not found in context 'c'."
    result = parse_session(b"a: Call (UDP:192.0.2.7:5060) to extension '" + extension + end, SOURCE, 0.0)
    event = result.result if isinstance(result, OpenMessage) else result
    assert isinstance(event, SecurityEvent)
    assert str(event.remote.address) == "192.0.2.7"


def test_a_request_with_several_addresses_has_a_reading_for_each() -> None:
    """Each address may be the true one: in the From, where Asterisk writes it, and in the Call-ID."""
    claim = b"' failed for '%s' (callid: "
    line = b"Request 'REGISTER' from 'a%sb%sc%sd) - Failed to authenticate" % (
        claim % b"203.0.113.9:5060",
        claim % b"192.0.2.7:40000",
        claim % b"no address",
    )
    result = parse_distributor(line, SOURCE, 0.0)

    assert isinstance(result, SecurityEvent)
    found = [(str(one.remote.address), one.remote.port, one.forgeable) for one in result.readings]
    assert found == [("203.0.113.9", 5060, True), ("192.0.2.7", 40_000, True)]
    assert result == evolve(result.readings[0], readings=result.readings)
    assert result.readings[1].session == b"c' failed for 'no address' (callid: d"
    assert {one.method for one in result.readings} == {"REGISTER"}
    old = parse_distributor(line.replace(b"'REGISTER' ", b""), SOURCE, 0.0)
    assert isinstance(old, SecurityEvent)
    assert {one.method for one in old.readings} == {UNNAMED}


def test_a_request_with_too_many_addresses_is_ambiguous() -> None:
    """A sender cannot name all ports of a victim in one line."""
    claims = b"".join(b"' failed for '203.0.113.9:%d' (callid: " % port for port in range(1, 10))
    line = b"Request 'REGISTER' from 'a%sb) - Failed to authenticate"

    assert parse_distributor(line % claims, SOURCE, 0.0) == Reason.AMBIGUOUS


def test_a_request_with_an_escape_is_one_reading() -> None:
    """Text that Asterisk removed from a message with an ESC is unknown, so a connection has to confirm it."""
    line = b"Request 'REGISTER' from 'a\x1b' failed for '192.0.2.7:5060' (callid: b) - Failed to authenticate"
    result = parse_distributor(line, SOURCE, 0.0)

    assert isinstance(result, SecurityEvent)
    assert [str(one.remote.address) for one in result.readings] == ["192.0.2.7"]
