"""Block lists in common formats, and hostile ones."""

import io
import random
import tracemalloc
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import ListError
from ringfence.lists import files
from ringfence.lists.files import LOCAL, MAX_LINE, MAX_NETWORKS, ListFile, read_list
from ringfence.parse.feeds import NAMED


def read(text: bytes, *, everything: bool = False, most: int = 262_144) -> ListFile:
    """Read a list from memory."""
    return read_list(io.BytesIO(text), everything=everything, most=most)


def networks(found: ListFile) -> list[str]:
    """Return the networks of a list as texts."""
    return [str(network) for network in found.networks]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"192.0.2.1", ["192.0.2.1/32"]),
        (b"  192.0.2.1\t", ["192.0.2.1/32"]),
        (b"192.0.2.0/24", ["192.0.2.0/24"]),
        (b"2001:db8::/32", ["2001:db8::/32"]),
        (b"::ffff:192.0.2.1", ["192.0.2.1/32"]),
        (b"192.0.2.1 # seen yesterday", ["192.0.2.1/32"]),
        (b"192.0.2.1#seen", ["192.0.2.1/32"]),
        (b"192.0.2.0/24 ; SBL123456", ["192.0.2.0/24"]),
        (b"192.0.2.1, 5, bad", ["192.0.2.1/32"]),
        (b'"192.0.2.1","2026-01-01"', ["192.0.2.1/32"]),
        (b"192.0.2.1\tsip\t17", ["192.0.2.1/32"]),
        (b"192.0.2.4-192.0.2.7", ["192.0.2.4/30"]),
        (b"192.0.2.4 - 192.0.2.8 a provider", ["192.0.2.4/30", "192.0.2.8/32"]),
        (b"2001:db8::-2001:db8::1", ["2001:db8::/127"]),
        ("192.0.2.1 # größer".encode(), ["192.0.2.1/32"]),
        (b"", []),
        (b"   ", []),
        (b"# a comment", []),
        (b"; another", []),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_valid_lines(line: bytes, expected: list[str], end: bytes) -> None:
    """Comments, further fields, blanks and line ends around a network change nothing."""
    found = read(line + end)

    assert networks(found) == expected
    assert found.bad == []


def test_a_byte_order_mark_is_skipped() -> None:
    """A BOM is ignored at the start of the file only."""
    found = read(b"\xef\xbb\xbf192.0.2.1\n\xef\xbb\xbf192.0.2.2\n")

    assert networks(found) == ["192.0.2.1/32"]
    assert [str(bad) for bad in found.bad] == ["line 2: 'ï»¿192.0.2.2': is not ASCII"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"pbx.example", "'pbx.example' does not appear to be an IPv4 or IPv6 network"),
        (b"192.0.2.1/24", "192.0.2.1/24 has host bits set"),
        (b"192.0.2.01", "'192.0.2.01' does not appear to be an IPv4 or IPv6 network"),
        (b"fe80::1%eth0", "'fe80::1%eth0' has a zone; leave it out"),
        (b"0.0.0.0/0", "is the whole internet"),
        (b"0.0.0.0-255.255.255.255", "is the whole internet"),
        (b"192.0.2.9-192.0.2.1", "is not a range of addresses"),
        (b"192.0.2.0/24-192.0.3.0", "is not a range of addresses"),
        (b"192.0.2.1-2001:db8::1", "is not a range of addresses"),
        (b"192.0.2.0 192.0.2.255", "two addresses side by side; write a range as a-b, a network as a/24"),
        (b"192.0.2.0 255.255.255.0", "two addresses side by side; write a range as a-b, a network as a/24"),
        (b"\xff\xfe", "is not ASCII"),
        (b"1" * (MAX_LINE + 1), f"is longer than {MAX_LINE} bytes"),
    ],
)
def test_bad_lines_are_reported_and_the_others_are_read(line: bytes, reason: str) -> None:
    """A bad line is reported with its number and the reason; the other lines count."""
    found = read(b"192.0.2.77\n" + line + b"\n192.0.2.99\n")

    assert networks(found) == ["192.0.2.77/32", "192.0.2.99/32"]
    assert [(bad.number, bad.reason) for bad in found.bad] == [(2, reason)]
    assert (found.lines, found.bad_lines) == (3, 1)


def test_bad_lines_beyond_the_limit_are_only_counted() -> None:
    """The number of named lines is limited, so that a wrong file does not fill the screen."""
    found = read(b"no\n" * 1_000)

    assert (len(found.bad), found.bad_lines) == (NAMED, 1_000)


def test_a_shown_line_is_short_and_printable() -> None:
    """Control characters of a hostile file never reach the terminal unescaped."""
    [bad] = read(b"\x1b]0;gotcha\x07" + b"x" * 500).bad

    assert bad.text.startswith("\\x1b]0")
    assert len(str(bad)) < 300
    assert str(bad).isprintable()


def test_a_compressed_list_is_refused_with_its_fix() -> None:
    """Output of gzip is recognized and not parsed as lines."""
    with pytest.raises(ListError, match="is compressed"):
        read(b"\x1f\x8b\x08\x00rest\n")


def test_a_list_has_a_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with more networks than the limit is refused before it fills the memory."""
    monkeypatch.setattr(files, "MAX_NETWORKS", 3)

    with pytest.raises(ListError, match=r"more than 3 networks, and no more fit.*split it"):
        read(b"".join(b"198.51.100.%d\n" % number for number in range(0, 10, 2)))


@pytest.mark.parametrize("number", [4, 5, 6, 7, 8, 9, 40])
def test_more_networks_than_fit_are_refused(number: int) -> None:
    """The error names the limit and the key to raise, for any length; adjacent networks count as one."""
    lines = b"".join(b"198.51.100.%d\n2001:db8::%x\n" % (2 * n, 2 * n) for n in range(number))

    with pytest.raises(ListError, match=r"more than 7 networks.*raise \[firewall\] max_bans"):
        read(lines, most=7)
    assert len(read(lines, most=2 * number).networks) == 2 * number
    joined = b"".join(b"198.51.100.%d\n" % n for n in range(64))
    assert networks(read(joined, most=7)) == ["198.51.100.0/26"]


class Counted(io.RawIOBase):
    """A list of ``lines`` lines without adjacent addresses, which counts the lines that were read."""

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self.number = 0

    def readline(self, _: int | None = -1, /) -> bytes:
        """Return the next line."""
        if self.number >= self.lines:
            return b""
        self.number += 1
        return b"%d.%d.%d.%d\n" % (11 + (self.number >> 23), *(2 * self.number).to_bytes(4, "big")[1:])


def test_two_million_lines_are_refused_before_they_are_read() -> None:
    """Reading stops at twice the limit; memory stays at a few hundred bytes per network of the limit."""
    lines = Counted(2_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ListError, match="more than 10000 networks"):
            read_list(cast("BinaryIO", lines), most=10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert lines.number == 2 * 10_000 + 1
    assert peak < 10_000 * 300


@pytest.mark.long
def test_two_million_lines_are_read_where_they_fit() -> None:
    """All lines count if the kernel has room for them."""
    found = read_list(cast("BinaryIO", Counted(MAX_NETWORKS)), most=4_194_304)

    assert (len(found.networks), found.bad_lines) == (2_000_000, 0)


def test_local_networks_are_left_out() -> None:
    """A list of bogons does not deny the office's phones, unless the caller insists."""
    text = b"10.0.0.0/8\n192.168.1.1\n224.0.0.0/4\nfe80::/10\n100.0.0.0/8\n203.0.113.9\n"
    found = read(text)

    assert networks(found) == ["203.0.113.9/32"]
    assert found.left_out == ["10.0.0.0/8", "100.0.0.0/8", "192.168.1.1", "224.0.0.0/4", "fe80::/10"]
    assert networks(read(text, everything=True)) == [
        "10.0.0.0/8",
        "100.0.0.0/8",
        "192.168.1.1/32",
        "203.0.113.9/32",
        "224.0.0.0/4",
        "fe80::/10",
    ]


@pytest.mark.parametrize(
    "wide", ["128.0.0.0/3", "64.0.0.0/2", "0.0.0.0/1", "128.0.0.0-191.255.255.255", "2000::/3"]
)
def test_a_network_wider_than_any_registry_assigns_is_a_bad_line(wide: str) -> None:
    """Such a line denies nothing unless the caller insists, also if it contains local networks."""
    found = read(f"203.0.113.9\n{wide}\n".encode())

    assert networks(found) == ["203.0.113.9/32"]
    assert (found.bad_lines, found.left_out) == (1, [])
    assert found.bad[0].reason == "is a large part of the internet; --force imports it"
    assert len(networks(read(f"203.0.113.9\n{wide}\n".encode(), everything=True))) == 2


@pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_long_list_is_read_completely(number: int) -> None:
    """It contains each of its addresses, and no local ones."""
    chance = random.Random(1)  # noqa: S311 - the same list each time
    lines = {f"{chance.randrange(11, 99)}.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(number)}
    found = read("\n".join(sorted(lines)).encode())

    assert sum(network.num_addresses for network in found.networks) == number
    assert found.bad_lines == 0


@given(st.binary(max_size=300))
def test_no_input_raises_another_error(text: bytes) -> None:
    """Any file is either a list with a number of bad lines, or a ListError."""
    try:
        found = read(text)
    except ListError:
        return
    assert len(found.bad) == min(found.bad_lines, NAMED)
    assert not any(network.overlaps(own) for network in found.networks for own in LOCAL)
