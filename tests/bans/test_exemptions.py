"""Exemptions: addresses that are not banned, and the reasons that an administrator reads."""

from ipaddress import ip_address, ip_network

import pytest

from ringfence.bans.exempt import ITSELF, Exempt, too_wide, without_reserved
from ringfence.values.network import NetworkSet

EXEMPT = Exempt(
    NetworkSet([ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/48")]),
    {**ITSELF, ip_network("203.0.113.1"): "the gateway", ip_network("2001:db8::1"): "a resolver"},
)
ALLOWED = "is allowed (see: ringfence allow list)"
INSIST = "; --force bans it anyway"


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
    """An allowed address is always refused; a protected one, or a network around it, unless forced."""
    network = ip_network(text)

    assert EXEMPT.refusal(network) == why
    assert EXEMPT.refusal(network, force=True) == forced


def test_without_a_word_only_this_host_itself_is_exempt() -> None:
    """Without configuration only the loopback networks of both versions are exempt."""
    assert Exempt().never_banned.networks == frozenset(ITSELF)


def test_a_large_part_of_the_internet_is_refused_with_its_reason() -> None:
    """An administrator reads why a very wide network is not banned, and how to ban it."""
    reason = "is a large part of the internet, so it is not banned; --force bans it anyway"
    assert too_wide(ip_network("10.0.0.0/7")) == reason


def test_the_detector_gets_allowed_and_protected_networks() -> None:
    """The detector receives all exempt networks, allowed and protected."""
    assert EXEMPT.never_banned.networks == EXEMPT.allowed.networks | EXEMPT.protected.keys()


@pytest.mark.parametrize(
    ("text", "reaches", "spares"),
    [
        ("192.0.2.0/24", "192.0.2.7", "127.0.0.1"),
        ("0.0.0.0/0", "198.51.100.7", "127.82.70.1"),
        ("::/0", "2001:db8::7", "2001:db8:5246::1"),
    ],
)
def test_whoever_is_allowed_the_hosts_own_is_left_out(text: str, reaches: str, spares: str) -> None:
    """An allow list leaves out this host's reserved networks, because the daemon tests bans there."""
    left = NetworkSet(without_reserved(ip_network(text)))
    assert left.covers(ip_address(reaches))
    assert not left.covers(ip_address(spares))


@pytest.mark.parametrize("text", ["127.0.0.0/8", "127.0.0.1", "2001:db8:5246::/64"])
def test_of_the_hosts_own_nothing_is_left(text: str) -> None:
    """An allow list contains nothing of this host's reserved networks."""
    assert list(without_reserved(ip_network(text))) == []


@pytest.mark.parametrize(
    ("network", "wide"),
    [("198.0.0.0/7", True), ("198.0.0.0/8", False), ("2000::/15", True), ("2001::/16", False)],
)
def test_a_network_that_is_too_wide(network: str, *, wide: bool) -> None:
    """The widest networks that can be banned without --force are those of the deny list."""
    assert (too_wide(ip_network(network)) is not None) == wide
