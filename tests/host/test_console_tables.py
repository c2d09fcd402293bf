"""Output of Asterisk's console, as versions 16 and 22 print it."""

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.host.console_tables import Trunk, identifies_from, peers_from, settings_from

IDENTIFIES = """\

 Identify:  <Identify/Endpoint...........................................................>
      Match:  <criteria...........................>
==========================================================================================

 Identify:  by-address/carrier
      Match: 203.0.113.0/28
      Match: 2001:db8::5/128

 Identify:  by-header/other
{header}

 Identify:  own/sbc
      Match: 127.0.0.1/32
      Match: 203.0.113.300/32
      Match: 0.0.0.0/0

Objects found: 3

"""
PEERS = """\
Name/username             Host                                    Dyn Forcerport Comedia    ACL Port     Status      Description
bob                       (Unspecified)                            D  Auto (No)  No             0        Unmonitored
here/here                 198.51.100.9                             D  Auto (No)  No             5060     OK (3 ms)
tr6                       2001:db8:1111:2222:3333:4444:5555:6666      Auto (No)  No             5060     Unmonitored
trunk/user                203.0.113.77                                Auto (No)  No          A  5060     OK (20 ms)
nowhere                   (null)                                      Auto (No)  No             0        Unmonitored
4 sip peers [Monitored: 0 online, 0 offline Unmonitored: 2 online, 2 offline]
"""  # noqa: E501 - as it is printed


def test_identifies_name_networks() -> None:
    """Each network belongs to its endpoint; headers are skipped in both releases, and so is loopback."""
    for header in ("      Match: X-Tok: abc", "     Header: X-Tok: 1.2.3.4/32"):
        assert identifies_from(IDENTIFIES.format(header=header)) == [
            Trunk("carrier", ip_network("203.0.113.0/28")),
            Trunk("carrier", ip_network("2001:db8::5/128")),
            Trunk("sbc", ip_network("0.0.0.0/0")),
        ]
    assert identifies_from("No objects found.\n\n") == []


def test_peers_with_an_address_of_their_own() -> None:
    """A peer that registers is a phone; a peer with a fixed address is identified by it."""
    assert peers_from(PEERS) == [
        Trunk("tr6", ip_network("2001:db8:1111:2222:3333:4444:5555:6666/128")),
        Trunk("trunk", ip_network("203.0.113.77/32")),
    ]
    assert peers_from("0 sip peers [Monitored: 0 online]\n") == []


def test_settings_are_by_their_names() -> None:
    """Names are in lower case; the first value of a name counts, and empty values are skipped."""
    text = (
        "Global Settings:\n----\n  Allow unknown access:   Yes\n  Caller ID:              \n  Context:   a\n"
    )
    assert settings_from(text + "  Context:   b\n") == {"allow unknown access": "Yes", "context": "a"}


@settings(max_examples=2 * settings().max_examples)
@given(st.text(alphabet="\n []'=>.()/:0129abIncludeMatch", max_size=400))
def test_whatever_is_printed_is_read(text: str) -> None:
    """Unknown or missing tables give fewer results and raise nothing."""
    assert all(trunk.name for trunk in identifies_from(text) + peers_from(text))
    assert all(name == name.lower() for name in settings_from(text))
