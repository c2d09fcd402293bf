"""Block lists as the field writes them, and as a stranger may."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import ListError
from ringfence.lists import files
from ringfence.lists.files import HOUSE, MAX_LINE, NAMED, ListFile, read_list


def read(text: bytes, *, everything: bool = False) -> ListFile:
    """Read a list from memory."""
    return read_list(io.BytesIO(text), everything=everything)


def networks(found: ListFile) -> list[str]:
    """Give what was read, as texts."""
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
def test_how_a_line_may_look(line: bytes, expected: list[str], end: bytes) -> None:
    """Comments, further fields, blanks and line ends stand around a network and change nothing."""
    found = read(line + end)

    assert networks(found) == expected
    assert found.bad == []


def test_a_mark_of_the_encoding_is_no_part_of_the_first_line() -> None:
    """A BOM is left out, at the beginning alone."""
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
        (b"0.0.0.0/0", "that is everybody"),
        (b"0.0.0.0-255.255.255.255", "that is everybody"),
        (b"192.0.2.9-192.0.2.1", "is no range of addresses"),
        (b"192.0.2.0/24-192.0.3.0", "is no range of addresses"),
        (b"192.0.2.1-2001:db8::1", "is no range of addresses"),
        (b"192.0.2.0 192.0.2.255", "two addresses side by side; write a range as a-b, a network as a/24"),
        (b"192.0.2.0 255.255.255.0", "two addresses side by side; write a range as a-b, a network as a/24"),
        (b"\xff\xfe", "is not ASCII"),
        (b"1" * (MAX_LINE + 1), f"is longer than {MAX_LINE} bytes"),
    ],
)
def test_bad_lines_are_named_and_the_good_ones_are_read(line: bytes, reason: str) -> None:
    """A bad line is told with its number and the reason; those around it count."""
    found = read(b"192.0.2.77\n" + line + b"\n192.0.2.99\n")

    assert networks(found) == ["192.0.2.77/32", "192.0.2.99/32"]
    assert [(bad.number, bad.reason) for bad in found.bad] == [(2, reason)]
    assert (found.lines, found.bad_lines) == (3, 1)


def test_so_many_bad_lines_are_named_and_the_rest_counted() -> None:
    """A file that is no list does not fill the screen."""
    found = read(b"no\n" * 1_000)

    assert (len(found.bad), found.bad_lines) == (NAMED, 1_000)


def test_what_is_shown_of_a_line_is_short_and_printable() -> None:
    """Nothing of a hostile file reaches the terminal as it is."""
    [bad] = read(b"\x1b]0;gotcha\x07" + b"x" * 500).bad

    assert bad.text.startswith("\\x1b]0")
    assert len(str(bad)) < 300
    assert str(bad).isprintable()


def test_a_compressed_list_is_told_as_such() -> None:
    """What gzip wrote is not read as lines."""
    with pytest.raises(ListError, match="is compressed"):
        read(b"\x1f\x8b\x08\x00rest\n")


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More networks than may be are refused, not remembered."""
    monkeypatch.setattr(files, "MAX_NETWORKS", 3)

    with pytest.raises(ListError, match="more than 3 networks"):
        read(b"".join(b"198.51.100.%d\n" % number for number in range(0, 10, 2)))


def test_the_house_is_left_out() -> None:
    """A list of bogons does not silence the office's phones, unless that is insisted on."""
    text = b"10.0.0.0/8\n192.168.1.1\n224.0.0.0/4\nfe80::/10\n64.0.0.0/2\n203.0.113.9\n"
    found = read(text)

    assert networks(found) == ["203.0.113.9/32"]
    assert found.left_out == ["10.0.0.0/8", "64.0.0.0/2", "192.168.1.1", "224.0.0.0/4", "fe80::/10"]
    assert networks(read(text, everything=True)) == [
        "10.0.0.0/8",
        "64.0.0.0/2",
        "192.168.1.1/32",
        "203.0.113.9/32",
        "224.0.0.0/4",
        "fe80::/10",
    ]


def test_a_hundred_thousand_lines() -> None:
    """A long list is read whole: each address of it, and nothing of the house."""
    chance = random.Random(1)  # noqa: S311 - the same list each time
    lines = {f"{chance.randrange(11, 99)}.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)}
    found = read("\n".join(sorted(lines)).encode())

    assert sum(network.num_addresses for network in found.networks) == 100_000
    assert found.bad_lines == 0


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    """Whatever a file holds is a list, with so many bad lines, or a ListError."""
    try:
        found = read(text)
    except ListError:
        return
    assert len(found.bad) == min(found.bad_lines, NAMED)
    assert not any(network.overlaps(own) for network in found.networks for own in HOUSE)
