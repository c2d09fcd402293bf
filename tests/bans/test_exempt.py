"""Who is not banned: the reasons, as an administrator reads them."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bans.test_ledger import NETWORKS

from ringfence.bans.exempt import ITSELF, Exempt, overlap, reachable
from ringfence.detect.networks import NetworkSet
from ringfence.model import Network

EXEMPT = Exempt(
    NetworkSet([ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/48")]),
    {**ITSELF, ip_network("203.0.113.1"): "the gateway", ip_network("2001:db8::1"): "a resolver"},
)
ALLOWED = "is allowed (see: ringfence allow list)"
INSIST = "; --force bans it all the same"


@pytest.mark.parametrize(
    ("text", "why", "forced"),
    [
        ("192.0.2.1", None, None),
        ("198.51.100.7", ALLOWED, ALLOWED),
        ("198.51.100.0/24", ALLOWED, ALLOWED),
        ("198.51.0.0/16", None, None),
        ("2001:db8:1:2::/64", ALLOWED, ALLOWED),
        ("203.0.113.1", f"is never banned: the gateway{INSIST}", None),
        ("203.0.113.0/24", f"is never banned: 203.0.113.1, the gateway{INSIST}", None),
        ("2001:db8::/64", f"is never banned: 2001:db8::1, a resolver{INSIST}", None),
        ("127.0.0.1", f"is never banned: 127.0.0.0/8, this host itself{INSIST}", None),
        ("::1", f"is never banned: this host itself{INSIST}", None),
    ],
)
def test_a_refusal_has_its_reason(text: str, why: str | None, forced: str | None) -> None:
    """Who is allowed is not banned at all; what protects can be overruled; a network around it is refused."""
    network = ip_network(text)

    assert EXEMPT.refusal(network) == why
    assert EXEMPT.refusal(network, force=True) == forced


def test_without_a_word_only_this_host_itself_is_exempt() -> None:
    """Loopback of both versions."""
    assert Exempt().never.networks == frozenset(ITSELF)


def test_whom_no_rule_bans_is_both() -> None:
    """The detector is told of all of them, for whatever reason they are exempt."""
    assert EXEMPT.never.networks == EXEMPT.allowed.networks | EXEMPT.protected.keys()


@given(NETWORKS, NETWORKS | st.integers(0, 128))
def test_networks_overlap_as_ipaddress_says(one: Network, drawn: Network | int) -> None:
    """For any two of both versions; one that lies in the other among them."""
    other = one.supernet(new_prefix=min(drawn, one.prefixlen)) if isinstance(drawn, int) else drawn
    same = one.version == other.version
    assert overlap(one, other) == overlap(other, one) == (same and one.overlaps(other))


@pytest.mark.parametrize(
    ("text", "reaches", "spares"),
    [
        ("192.0.2.0/24", "192.0.2.7", "127.0.0.1"),
        ("0.0.0.0/0", "198.51.100.7", "127.82.70.1"),
        ("::/0", "2001:db8::7", "2001:db8:5246::1"),
    ],
)
def test_whoever_is_allowed_the_hosts_own_is_left_out(text: str, reaches: str, spares: str) -> None:
    """Bans are tried there, and nobody else is: else a list that allows all would stop the guard."""
    left = NetworkSet(reachable(ip_network(text)))
    assert left.covers(ip_address(reaches))
    assert not left.covers(ip_address(spares))


@pytest.mark.parametrize("text", ["127.0.0.0/8", "127.0.0.1", "2001:db8:5246::/64"])
def test_of_the_hosts_own_nothing_is_left(text: str) -> None:
    """It needs no list."""
    assert list(reachable(ip_network(text))) == []
