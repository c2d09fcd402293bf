"""The networks that an entry of a block list names, and those that no list denies."""

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lists.prefixes import code_of, network_of, text_of
from ringfence.lists.texts import LOCAL, host_codes, networks_in, overlaps_local


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ("2001:db8::/32", ["2001:db8::/32"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"]),
        ("192.0.2.4-192.0.2.7", ["192.0.2.4/30"]),
        ("192.0.2.4-192.0.2.8", ["192.0.2.4/30", "192.0.2.8"]),
        ("2001:db8::-2001:db8::1", ["2001:db8::/127"]),
    ],
)
def test_an_entry_is_an_address_a_network_or_a_range(text: str, expected: list[str]) -> None:
    """A range is the fewest networks that have exactly its addresses."""
    assert [text_of(*one) for one in networks_in(text)] == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pbx.example", "does not appear to be an IPv4 or IPv6 network"),
        ("192.0.2.1/24", "has host bits set"),
        ("192.0.2.01", "does not appear to be an IPv4 or IPv6 network"),
        ("fe80::1%eth0", "has a zone; leave it out"),
        ("0.0.0.0/0", "is the whole internet"),
        ("0.0.0.0-255.255.255.255", "is the whole internet"),
        ("192.0.2.9-192.0.2.1", "is not a range of addresses"),
        ("192.0.2.0/24-192.0.3.0", "is not a range of addresses"),
        ("192.0.2.1-2001:db8::1", "is not a range of addresses"),
    ],
)
def test_another_text_is_an_error(text: str, reason: str) -> None:
    """The error has the reason."""
    with pytest.raises(ValueError, match=reason):
        networks_in(text)


@given(st.text(max_size=60))
def test_no_text_raises_another_error(text: str) -> None:
    """Any text names networks, or is a ValueError."""
    try:
        found = networks_in(text)
    except ValueError:
        return
    assert all(network_of(*one).prefixlen for one in found)


@given(
    st.ip_addresses().flatmap(
        lambda one: st.integers(1, one.max_prefixlen).map(lambda length: f"{one}/{length}")
    )
)
def test_a_network_with_a_local_address_is_local(text: str) -> None:
    """The quick test finds every overlap with a local network."""
    network = ip_network(text, strict=False)

    if any(network.overlaps(own) for own in LOCAL):
        assert overlaps_local(*code_of(network))
    elif network.version == 4:
        assert not overlaps_local(*code_of(network))


_NEARLY_HOSTS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){2,3}[/x: .\0]?", fullmatch=True)


@given(st.lists(st.ip_addresses(v=4).map(str)) | st.lists(_NEARLY_HOSTS | st.ip_addresses().map(str)))
def test_many_addresses_are_read_as_each_alone(texts: list[str]) -> None:
    """IPv4 addresses have the codes that each alone has; with any other text, each is read alone."""
    found = host_codes(texts)
    if found is None:
        assert any(_is_no_host(text) for text in texts)
        return
    public, local = found
    codes = [networks_in(text)[0] for text in texts]
    assert public == [code for version, code in codes if not overlaps_local(version, code)]
    assert local == [code for version, code in codes if overlaps_local(version, code)]


def _is_no_host(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return True
    return False
