"""What a line of the lists may be, and what is refused of it."""

from ipaddress import ip_network

import pytest

from ringfence.lists.entries import Kind, What, host_from, place_from, refused, refused_of, what_from
from ringfence.model import Side


@pytest.mark.parametrize(
    ("text", "kind", "kept"),
    [
        ("192.0.2.1", Kind.NETWORK, "192.0.2.1"),
        ("192.0.2.1/32", Kind.NETWORK, "192.0.2.1"),
        ("::ffff:192.0.2.0/120", Kind.NETWORK, "192.0.2.0/24"),
        ("2001:DB8::/32", Kind.NETWORK, "2001:db8::/32"),
        ("SIP.Carrier.example.", Kind.HOST, "sip.carrier.example"),
        ("xn--bcher-kva.example", Kind.HOST, "xn--bcher-kva.example"),
        ("4.3.2.1.e164.arpa", Kind.HOST, "4.3.2.1.e164.arpa"),
        ("de", Kind.PLACE, "country DE"),
        ("country DE", Kind.PLACE, "country DE"),
        ("as64496", Kind.PLACE, "AS64496"),
    ],
)
def test_what_an_entry_may_be(text: str, kind: Kind, kept: str) -> None:
    """Each kind is told by its text alone, is kept in one form, and that form is read as the same."""
    what = what_from(text)

    assert (what.kind, what.text) == (kind, kept)
    assert what_from(kept) == what


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0/0", "that is everybody"),
        ("::/0", "that is everybody"),
        ("::ffff:0:0/96", "that is everybody"),
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
def test_what_an_entry_may_not_be(text: str, reason: str) -> None:
    """Anything else is refused with what it should be, and shown as a terminal may show it."""
    with pytest.raises(ValueError, match=reason):
        what_from(text)


def test_the_configuration_has_keys_of_its_own() -> None:
    """Names and places are each refused where the other is wanted."""
    assert host_from("a.example") == What(Kind.HOST, "a.example")
    with pytest.raises(ValueError, match="must be a host's name in full"):
        host_from("DE")
    with pytest.raises(ValueError, match="must be a country"):
        place_from("a.example")


PROTECTED = {ip_network("192.0.2.1"): "the default gateway", ip_network("2001:db8::53"): "a resolver"}


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("192.0.2.1/32", "192.0.2.1 is the default gateway"),
        ("192.0.2.0/24", "192.0.2.0/24 holds 192.0.2.1, the default gateway"),
        ("2001:db8::/32", "2001:db8::/32 holds 2001:db8::53, a resolver"),
        ("192.0.2.2/32", None),
        ("::/64", None),
    ],
)
def test_what_is_protected_is_refused(network: str, reason: str | None) -> None:
    """A network that is, or holds, what the host needs is named with the reason."""
    assert refused(ip_network(network), PROTECTED) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.0/24", "192.0.2.0/24 holds 192.0.2.1, the default gateway: it is not denied; --force"),
        ("8.0.0.0/7", "8.0.0.0/7 is a large part of the internet"),
        ("4000::/3", "4000::/3 is a large part of the internet"),
        ("a.example", "a.example: whoever owns a name could have anybody denied by it"),
    ],
)
def test_what_is_not_denied(text: str, reason: str) -> None:
    """It may be allowed all the same."""
    what = what_from(text)

    assert (refused_of(Side.DENY, what, PROTECTED) or "").startswith(reason)
    assert refused_of(Side.ALLOW, what, PROTECTED) is None


@pytest.mark.parametrize("text", ["203.0.113.9", "11.0.0.0/8", "2a00::/16", "DE", "AS64496"])
def test_what_is_denied(text: str) -> None:
    """Addresses, networks and places."""
    assert refused_of(Side.DENY, what_from(text), PROTECTED) is None
