"""The target of a SIP URI: one host, in one reading, or none."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.parse.roster import SipTarget, address_of, target_of
from ringfence.values.event import Transport


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("sip:204@192.0.2.7:5062", SipTarget("192.0.2.7", 5062, Transport.UDP)),
        ("sip:192.0.2.7", SipTarget("192.0.2.7", None, Transport.UDP)),
        ("SIP:192.0.2.7;Transport=TCP", SipTarget("192.0.2.7", None, Transport.TCP)),
        ("sips:sip.carrier.example;transport=tls", SipTarget("sip.carrier.example", None, Transport.TLS)),
        ("sips:sip.carrier.example", SipTarget("sip.carrier.example", None, Transport.TLS)),
        ("sip:204;a=b@[2001:db8::5]:5062", SipTarget("2001:db8::5", 5062, Transport.UDP)),
        ("<sip:192.0.2.7>", SipTarget("192.0.2.7", None, Transport.UDP)),
        ("<sip:[::ffff:192.0.2.7];lr>", SipTarget("::ffff:192.0.2.7", None, Transport.UDP)),
        ("sip:x@y.invalid;transport=ws;ob", SipTarget("y.invalid", None, Transport.WS)),
        ("sip:x@192.0.2.7;transport=sctp", SipTarget("192.0.2.7", None, Transport.UNKNOWN)),
        (
            "sip:carol@192.0.2.7:50244;x-ast-orig-host=10.0.0.5:5060",
            SipTarget("192.0.2.7", 50244, Transport.UDP),
        ),
    ],
)
def test_a_uri_has_its_host_as_target(uri: str, target: SipTarget) -> None:
    """User, port, transport and other parameters of phones and carriers are separated."""
    assert target_of(uri) == target


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "sip:",
        "tel:+4930123",
        "204@192.0.2.7",
        "sip:204@192.0.2.7:0",
        "sip:204@192.0.2.7:65536",
        "sip:204@192.0.2.7:",
        "sip:204@2001:db8::5",
        "sip:204@[192.0.2.7",
        "sip:204@192.0.2.7 ",
        "sip:204@192.0.2.7\n",
        "sip:204@192.0.2.7>;maddr=203.0.113.9",
        "sip:204@192.0.2.7;maddr=203.0.113.9",
        "sip:204@192.0.2.7;x=1;MADDR=203.0.113.9",
        "sip:204@192.0.2.7;%6daddr=203.0.113.9",
        "sip:204@192.0.2.7?Route=%3csip:203.0.113.9%3e",
        "sip:204@192.0.2.7;x=@203.0.113.9",
        'sip:ali%0d%0ace@192.0.2.7;x="a@203.0.113.9"',
        "sip:" + "a" * 1100 + "@192.0.2.7",
    ],
)
def test_an_ambiguous_uri_has_no_target(uri: str) -> None:
    """Another host that Asterisk might send to, or no host at all."""
    assert target_of(uri) is None
    assert address_of(uri) is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[::ffff:192.0.2.7]", "192.0.2.7"),
        ("phone.example", None),
        ("192.0.2.300", None),
        ("192.0.2.07", None),
        ("0.0.0.0", None),
        ("[::]", None),
        ("224.0.1.75", None),
    ],
)
def test_an_address_is_one_hosts(host: str, address: str | None) -> None:
    """A name, an invalid number, the unspecified address and multicast addresses give None."""
    assert address_of(f"sip:204@{host}:5060") == (None if address is None else ip_address(address))


TEXT = st.text(max_size=20) | st.text('sip:@[];=?%.0123456789abmdr"<> \r\n', max_size=20)


HOSTS = st.sampled_from(["192.0.2.7", "[2001:db8::5]", "phone.example"])


@given(user=TEXT, host=HOSTS, mark=st.sampled_from(":;?> "), rest=TEXT)
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_no_address_is_made_up(user: str, host: str, mark: str, rest: str) -> None:
    """Whatever stands around a host, its address is returned, or none."""
    address = address_of(f"sip:{user}@{host}{mark}{rest}")
    assert address is None or str(address) == host.strip("[]")
