"""Valid and refused values of list entries."""

from ipaddress import ip_network

import pytest

from ringfence.lists.entries import (
    EntryKind,
    EntryValue,
    entry_refusal,
    parse_entry,
    parse_host,
    parse_region,
    protection_refusal,
)
from ringfence.values.entry import ListKind


@pytest.mark.parametrize(
    ("text", "kind", "kept"),
    [
        ("192.0.2.1", EntryKind.NETWORK, "192.0.2.1"),
        ("192.0.2.1/32", EntryKind.NETWORK, "192.0.2.1"),
        ("::ffff:192.0.2.0/120", EntryKind.NETWORK, "192.0.2.0/24"),
        ("2001:DB8::/32", EntryKind.NETWORK, "2001:db8::/32"),
        ("SIP.Carrier.example.", EntryKind.HOST, "sip.carrier.example"),
        ("xn--bcher-kva.example", EntryKind.HOST, "xn--bcher-kva.example"),
        ("4.3.2.1.e164.arpa", EntryKind.HOST, "4.3.2.1.e164.arpa"),
        ("de", EntryKind.REGION, "country DE"),
        ("country DE", EntryKind.REGION, "country DE"),
        ("as64496", EntryKind.REGION, "AS64496"),
    ],
)
def test_valid_entries(text: str, kind: EntryKind, kept: str) -> None:
    """The text alone determines the kind, and parsing the normalized form returns the same value."""
    value = parse_entry(text)

    assert (value.kind, value.text) == (kind, kept)
    assert parse_entry(kept) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0/0", "is the whole internet"),
        ("::/0", "is the whole internet"),
        ("::ffff:0:0/96", "is the whole internet"),
        ("192.0.2.1/24", "has host bits set"),
        ("192.0.2.0/33", "does not appear to be"),
        ("fe80::1%eth0", "has a zone"),
        ("1.2.3", "neither an address"),
        ("1.2.3.256", "neither an address"),
        ("", "neither an address"),
        ("office", "neither an address"),
        ("-a.example", "neither an address"),
        ("a..example", "neither an address"),
        ("bücher.example", "neither an address"),
        ("a." * 130 + "example", "neither an address"),
        ("\x1b[31m.example", r"\\x1b\[31m.example: neither an address"),
        ("AS0", "neither an address"),
        ("AS4294967296", "neither an address"),
        ("country Germany", "must be a country"),
    ],
)
def test_invalid_entries(text: str, reason: str) -> None:
    """Any other text is refused with an explanation, and is escaped for terminals."""
    with pytest.raises(ValueError, match=reason):
        parse_entry(text)


def test_the_configuration_has_keys_of_its_own() -> None:
    """A region is refused as a host name, and a host name is refused as a region."""
    assert parse_host("a.example") == EntryValue(EntryKind.HOST, "a.example")
    with pytest.raises(ValueError, match="must be a host's name in full"):
        parse_host("DE")
    with pytest.raises(ValueError, match="must be a country"):
        parse_region("a.example")


PROTECTED = {
    ip_network("192.0.2.1"): "the default gateway",
    ip_network("2001:db8::53"): "a resolver",
    ip_network("127.0.0.0/8"): "loopback",
}


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("192.0.2.1/32", "192.0.2.1 is the default gateway"),
        ("192.0.2.0/24", "192.0.2.0/24 contains 192.0.2.1, the default gateway"),
        ("2001:db8::/32", "2001:db8::/32 contains 2001:db8::53, a resolver"),
        ("127.0.0.5/32", "127.0.0.5 is in 127.0.0.0/8, loopback"),
        ("192.0.2.2/32", None),
        ("::/64", None),
    ],
)
def test_a_protected_network_is_refused(network: str, reason: str | None) -> None:
    """A network that overlaps one that the host needs is refused with the reason."""
    assert protection_refusal(ip_network(network), PROTECTED) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.0/24", "192.0.2.0/24 contains 192.0.2.1, the default gateway: it is not denied; --force"),
        ("8.0.0.0/7", "8.0.0.0/7 is a large part of the internet"),
        ("4000::/3", "4000::/3 is a large part of the internet"),
        ("a.example", "a.example: only addresses can be denied"),
    ],
)
def test_values_that_the_deny_list_refuses(text: str, reason: str) -> None:
    """The allow list refuses only what is a large part of the Internet."""
    value = parse_entry(text)
    allowed = entry_refusal(ListKind.ALLOW, value, PROTECTED)

    assert (entry_refusal(ListKind.DENY, value, PROTECTED) or "").startswith(reason)
    assert (allowed is not None and allowed.startswith(reason)) is ("large part" in reason)


@pytest.mark.parametrize("text", ["203.0.113.9", "11.0.0.0/8", "2a00::/16", "DE", "AS64496"])
def test_values_that_can_be_denied(text: str) -> None:
    """Addresses, networks and regions can be denied."""
    assert entry_refusal(ListKind.DENY, parse_entry(text), PROTECTED) is None
