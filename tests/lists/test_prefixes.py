"""Networks as integers: parsed and merged as ``ipaddress`` does it."""

from collections.abc import Callable
from ipaddress import (
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
    summarize_address_range,
)
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lists.prefixes import (
    Gatherer,
    Prefixes,
    code_of,
    coded,
    merged,
    network_of,
    summarized,
    text_of,
)
from ringfence.values.network import Network, parse_network

V4 = st.builds(
    lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)
V6 = st.builds(
    lambda number, length: IPv6Network((number >> (128 - length) << (128 - length), length)),
    st.integers(0, 2**128 - 1),
    st.integers(1, 128),
)
NEAR = st.builds(
    lambda number, length: IPv4Network(((10 << 24 | number) >> (32 - length) << (32 - length), length)),
    st.integers(0, 63),
    st.integers(24, 32),
)
"""Networks that are adjacent to one another or contain one another."""


def nets(*texts: str) -> list[Network]:
    """Return the networks of these texts."""
    return [ip_network(text) for text in texts]


@given(V4 | V6)
def test_a_code_is_its_network(network: Network) -> None:
    """A code converts back to its network, and the text of a code parses to the same code."""
    code = code_of(network)

    assert network_of(*code) == network
    assert coded(text_of(*code)) == code


TEXTS = st.text(alphabet="0123456789./:abcf%- ", max_size=20)
QUADS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{0,3})?")


def outcome(reading: Callable[[], Network]) -> Network | str:
    """Return the result of ``reading``, or the text of its error."""
    try:
        return reading()
    except ValueError as error:
        return str(error)


@given(TEXTS | QUADS)
def test_a_text_is_read_as_everywhere(text: str) -> None:
    """The fast parser returns the same as ``parse_network`` and raises the same errors."""
    assert outcome(lambda: network_of(*coded(text))) == outcome(lambda: parse_network(text))


def test_a_single_address_has_no_prefix_length() -> None:
    """An address has no length, a network has one, and an IPv4-mapped address becomes IPv4."""
    texts = ["192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/32"]

    assert [text_of(*coded(text)) for text in texts] == texts
    assert text_of(*coded("::ffff:192.0.2.1")) == "192.0.2.1"


@given(st.lists(NEAR | V4, max_size=30))
def test_networks_are_merged_as_by_ipaddress(networks: list[IPv4Network]) -> None:
    """Contained networks are dropped, two halves are joined, and the covered addresses stay the same."""
    codes = merged((code_of(network)[1] for network in networks), 32)

    expected = [network for one in collapse_addresses(networks) for network in _not_everybody(one)]
    assert [network_of(4, code) for code in codes] == expected


def _not_everybody(network: IPv4Network) -> list[IPv4Network]:
    return list(network.subnets()) if network.prefixlen == 0 else [network]


def test_two_halves_of_everything_stay_two() -> None:
    """The kernel's sets do not support networks of length 0."""
    assert list(Prefixes.of(nets("0.0.0.0/1", "128.0.0.0/1"))) == nets("0.0.0.0/1", "128.0.0.0/1")


@given(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(sorted))
def test_a_range_is_the_fewest_networks(ends: list[int]) -> None:
    """The result is the same as that of ``ipaddress``."""
    first, last = ends
    codes = summarized(first, last, 32)

    expected = summarize_address_range(*(ip_address(end) for end in ends))
    assert [network_of(4, code) for code in codes] == list(expected)


@given(st.lists(V4 | V6, max_size=20), V4 | V6)
def test_a_collection_finds_the_network_around_another(networks: list[Network], wanted: Network) -> None:
    """A collection contains the merged networks in order, and finds the one around a given network."""
    prefixes = Prefixes.of(networks)

    assert len(prefixes) == len(list(prefixes))
    assert all(network in prefixes for network in networks)
    around = [one for one in prefixes if one.version == wanted.version and wanted.subnet_of(one)]  # type: ignore[arg-type]
    assert prefixes.containing(wanted) == (around[0] if around else None)
    assert (wanted in prefixes) is bool(around)


@given(st.lists(V4 | V6, max_size=20), st.sampled_from([4, 6]))
def test_ranges_are_what_the_networks_cover(networks: list[Network], version: int) -> None:
    """The ranges of a collection are in order and apart, and cover the same addresses."""
    bounds = Prefixes.of(networks).bounds(version)
    ranges = list(zip(bounds[::2], bounds[1::2], strict=True))

    assert all(end + 1 < begin for (_, end), (begin, _) in pairwise(ranges))
    covered = sum(last - first + 1 for first, last in ranges)
    assert covered == Prefixes.of(networks).addresses(version)
    for network in networks:
        if network.version == version:
            first, last = int(network.network_address), int(network.broadcast_address)
            assert any(begin <= first and last <= end for begin, end in ranges)


def test_a_range_may_begin_with_the_first_address() -> None:
    """The address 0 belongs to a range like all others, and no network is no range."""
    assert Prefixes.of([IPv4Network("0.0.0.0/8")]).bounds(4) == [0, 2**24 - 1]
    assert Prefixes().bounds(4) == Prefixes().bounds(6) == []


@given(st.lists(V4 | V6, max_size=20))
def test_packed_networks_come_back(networks: list[Network]) -> None:
    """Networks are the same after they were packed; a cut copy is an error."""
    whole = Prefixes.of(networks)

    assert Prefixes.unpacked(*whole.packed) == whole
    with pytest.raises(ValueError, match="are cut"):
        Prefixes.unpacked(b"", b"x")
    with pytest.raises(ValueError, match="bytes length not a multiple"):
        Prefixes.unpacked(b"x", b"")


def test_collections_are_values() -> None:
    """Equal contents make equal collections, in whatever order they were added."""
    one = Prefixes.of(nets("192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"))
    gatherer = Gatherer()
    gatherer.extend(Prefixes.of(nets("2001:db8::/32")))
    gatherer.add(ip_network("192.0.2.0/24"))

    assert one == gatherer.prefixes()
    assert hash(one) == hash(gatherer.prefixes())
    assert one != Prefixes()
    assert "192.0.2.1" not in one
    assert repr(one) == "Prefixes(2 networks)"
    assert IPv6Network((IPv6Address("2001:db8::1"), 128)) in one
