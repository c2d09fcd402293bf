"""The formats of feeds: valid ones, damaged ones, and hostile ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.features.feeds.formats import (
    MAX_CURSOR,
    MAX_LINE,
    MAX_PAGE,
    NAMED,
    ApibanPage,
    FeedFormat,
    FeedLayout,
    FeedParser,
    identity_of,
    parse_apiban,
    parse_apiban_refusal,
)

PLAIN = FeedLayout()
CIDR = FeedLayout(FeedFormat.JSON, "cidr")
SECOND = FeedLayout(FeedFormat.CSV, "2")
NAMED_COLUMN = FeedLayout(FeedFormat.CSV, "dst_ip")

Found = tuple[list[tuple[int, str]], list[str], int]


def read(layout: FeedLayout, data: bytes, size: int = 0) -> Found:
    """Parse ``data`` in parts of ``size`` bytes (0: at once); return entries, bad lines and their number."""
    parser, entries = FeedParser(layout), []
    for at in range(0, len(data), size or len(data) or 1):
        entries += parser.receive(data[at : at + (size or len(data))])
    entries += parser.end()
    return entries, [str(bad) for bad in parser.bad.first], parser.bad.number


LISTS = {
    "blocklist.de": (PLAIN, b"192.0.2.1\n2001:db8::7\n", ["192.0.2.1", "2001:db8::7"]),
    "voipbl": (PLAIN, b"# VoIPBL\n\n192.0.2.0/24\n192.0.2.7/32\n", ["192.0.2.0/24", "192.0.2.7/32"]),
    "drop.txt": (PLAIN, b"; Spamhaus DROP\r\n192.0.2.0/24 ; SBL1\r\n", ["192.0.2.0/24"]),
    "comments": (PLAIN, "// größer\n! list\n \t# blank\n192.0.2.1 # ö\n".encode(), ["192.0.2.1"]),
    "range": (PLAIN, b"192.0.2.1 - 192.0.2.9 a provider", ["192.0.2.1-192.0.2.9"]),
    "quotes": (PLAIN, b'\xef\xbb\xbf"192.0.2.1","2026"', ["192.0.2.1"]),
    "apiban": (FeedLayout(FeedFormat.APIBAN), b"192.0.2.1\n", ["192.0.2.1"]),
    "drop.json": (
        CIDR,
        b'{"cidr":"192.0.2.0/24","sblid":"SBL1"}\n{"cidr":"2001:db8::/32"}\n{"type":"metadata","records":2}\n',
        ["192.0.2.0/24", "2001:db8::/32"],
    ),
    "metadata": (CIDR, b'# x\n{"cidr":"192.0.2.0/24"}\n{"type":"metadata"}', ["192.0.2.0/24"]),
    "csv": (SECOND, b'# first_seen,dst_ip\n"2026-01-01, 12:00","192.0.2.1",x\n', ["192.0.2.1"]),
    "csv head": (NAMED_COLUMN, b"seen, dst_ip\n\n2026,192.0.2.1\n", ["192.0.2.1"]),
    "empty": (PLAIN, b"", []),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", LISTS)
def test_every_format_is_read_in_parts_of_any_size(name: str, size: int) -> None:
    """The entries do not depend on how the bytes arrive."""
    layout, data, expected = LISTS[name]

    entries, bad, _ = read(layout, data, size)

    assert ([text for _, text in entries], bad) == (expected, [])


@pytest.mark.parametrize(
    ("layout", "line", "reason"),
    [
        (PLAIN, b"x" * (MAX_LINE + 1), f"is longer than {MAX_LINE} bytes"),
        (CIDR, b"x" * (MAX_LINE + 1), f"is longer than {MAX_LINE} bytes"),
        (PLAIN, b"192.0.2.\xff", "is not ASCII"),
        (SECOND, b"a,\xff", "is not ASCII"),
        (PLAIN, b"192.0.2.0 255.255.255.0", "two addresses side by side"),
        (PLAIN, b"192.0.2.1\r192.0.2.2", "two addresses side by side"),
        (CIDR, b"<html>", "is not JSON"),
        (CIDR, b"\xff", "is not JSON"),
        (CIDR, b"[" * 4_000, "is not JSON"),
        (CIDR, b'["192.0.2.1"]', "is not a JSON object"),
        (CIDR, b'{"ip":"192.0.2.1"}', 'has no text under the key "cidr"'),
        (CIDR, b'{"cidr":1}', 'has no text under the key "cidr"'),
        (CIDR, b'{"cidr":""}', 'has no text under the key "cidr"'),
        (CIDR, b'{"cidr":"\xc3\xb6"}', 'has no text under the key "cidr"'),
        (CIDR, b'{"type":"metadata","records":3}', "the list should have 3 entries and has 0"),
        (SECOND, b'a,"b', "unexpected end of data"),
        (SECOND, b"a", "has no column 2"),
        (SECOND, b"a,", "has no column 2"),
        (FeedLayout(FeedFormat.CSV, "0"), b"a,b", "has no column 0"),
        (NAMED_COLUMN, b"a,b", 'the first line names no column "dst_ip"'),
    ],
)
def test_a_bad_line_has_a_reason(layout: FeedLayout, line: bytes, reason: str) -> None:
    """A line that violates the format is counted and named, however its bytes arrive."""
    for size in (0, 1, 1_000):
        entries, [bad], number = read(layout, line + b"\n", size)

        assert (entries, number) == ([], 1)
        assert bad.startswith("line 1: ")
        assert reason in bad


def test_a_compressed_list_is_bad() -> None:
    """The bytes of gzip are not taken for a list."""
    _, bad, _ = read(PLAIN, b"\x1f\x8bx")

    assert bad == ["line 1: '\\\\x1f\\\\x8bx': the list is compressed"]


def test_bad_lines_beyond_the_limit_are_only_counted() -> None:
    """The memory that bad lines take has a limit."""
    entries, bad, number = read(CIDR, b"x\n" * 1_000)

    assert (entries, len(bad), number) == ([], NAMED, 1_000)


def test_a_long_line_takes_no_memory() -> None:
    """A line without an end is cut, and the next line is read."""
    parser = FeedParser(PLAIN)
    for _ in range(1_000):
        assert parser.receive(b"x" * 10_000) == []

    assert parser.receive(b"\n192.0.2.1\n") == [(2, "192.0.2.1")]
    assert parser.bad.number == 1


@pytest.mark.parametrize("line", [b"#\n", b"\n", b"192.0.2.1\n", b'{"type":"metadata"}\n', b"a,b\n", b"x\n"])
@pytest.mark.parametrize("layout", [PLAIN, CIDR, SECOND])
def test_only_so_many_lines_are_parsed(layout: FeedLayout, line: bytes) -> None:
    """The number of lines has a limit, whatever stands in them, and the rest is not parsed."""
    parser = FeedParser(layout, 100)
    for _ in range(100):
        parser.receive(line)
    expected = parser.bad.number
    assert parser.receive(line) == []
    assert [parser.receive(line * 1_000) for _ in range(10)] == [[]] * 10
    assert parser.receive(b"192.0.2.1") == []
    assert parser.end() == []
    assert (parser.lines, parser.bad.number) == (101, expected + 1)
    assert expected or str(parser.bad.first[-1]) == "line 101: '': the list has more than 100 lines"


@given(st.sampled_from([PLAIN, CIDR, SECOND, NAMED_COLUMN]), st.binary(max_size=300), st.integers(1, 9))
def test_no_bytes_raise_an_error(layout: FeedLayout, data: bytes, size: int) -> None:
    """Any bytes lead to entries and bad lines, the same in parts of any size."""
    assert read(layout, data, size) == read(layout, data)


@given(st.lists(st.ip_addresses(), max_size=20), st.sampled_from([b"\n", b"\r\n", b" # x\n", b";\n"]))
def test_each_address_of_a_plain_list_is_found(addresses: list[object], end: bytes) -> None:
    """Every address comes back as it was written, with the number of its line."""
    texts = [str(address) for address in addresses]

    entries, bad, _ = read(PLAIN, b"".join(text.encode() + end for text in texts))

    assert (entries, bad) == (list(enumerate(texts, start=1)), [])


def test_a_page_of_apiban() -> None:
    """A page has addresses, and the cursor for the next one."""
    body = b'{"ipaddress":["192.0.2.1","2001:db8::1"],"ID":"1608"}'

    assert parse_apiban(body) == ApibanPage("1608", ("192.0.2.1", "2001:db8::1"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"rate limit exceeded", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"ipaddress":["192.0.2.1"]}', 'has no valid "ID"'),
        (b'{"ipaddress":["192.0.2.1"],"ID":"../x"}', 'has no valid "ID"'),
        (b'{"ipaddress":["192.0.2.1"],"ID":""}', 'has no valid "ID"'),
        (json.dumps({"ipaddress": ["192.0.2.1"], "ID": "1" * (MAX_CURSOR + 1)}).encode(), "no valid"),
        (b'{"ipaddress":[],"ID":"1"}', 'has no list "ipaddress"'),
        (b'{"ipaddress":"192.0.2.1","ID":"1"}', 'has no list "ipaddress"'),
        (b'{"ipaddress":["no new bans"],"ID":"none"}', "a value that is not an address"),
        (b'{"ipaddress":[1],"ID":"1"}', "a value that is not an address"),
        (rb'{"ipaddress":["fe80::1%\ud800"],"ID":"1"}', "a value that is not an address"),
        (rb'{"ipaddress":["::1%\n8.8.8.8"],"ID":"1"}', "a value that is not an address"),
        (b" " * (MAX_PAGE + 1), f"is longer than {MAX_PAGE} bytes"),
    ],
)
def test_a_malformed_page_is_refused(body: bytes, reason: str) -> None:
    """A page counts whole or not at all."""
    with pytest.raises(ValueError, match=reason):
        parse_apiban(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"ipaddress":["no new bans"],"ID":"none"}', ""),
        (b'{"ipaddress":["unauthorized"],"ID":"unauthorized"}', "unauthorized"),
        (b'{"ipaddress":"rate limit exceeded","ID":"none"}', "rate limit exceeded"),
        (b'{"ipaddress":["no new bans"],"ID":"1"}', "no new bans"),
        (b'{"ipaddress":[],"ID":"none"}', "the request is refused"),
        (b'{"ipaddress":["\\u001b[2J"],"ID":"none"}', "the request is refused"),
        (b'{"ipaddress":["no key 0a1b2c"],"ID":"none"}', "the request is refused"),
        (b"<html>", "the request is refused"),
    ],
)
def test_a_refusal_of_apiban_has_a_reason(body: bytes, reason: str) -> None:
    """Only one answer means that there is nothing new; all others are errors, and none repeats the key."""
    assert parse_apiban_refusal(body) == reason


@given(st.binary(max_size=200))
def test_any_page_is_parsed_or_refused(body: bytes) -> None:
    """No answer raises another error than ValueError."""
    try:
        parse_apiban(body)
    except ValueError:
        parse_apiban_refusal(body)


def test_the_identity_of_a_source_changes_with_each_part_and_shows_none() -> None:
    """Sources whose parts read the same when joined differ, and a key in a URL stays secret."""
    sources = [
        ("https://a/?key=s3cret", "plain"),
        ("https://a/?key=s3cretp", "lain"),
        ("https://a/?key=s3cret",),
    ]
    identities = [identity_of(*source) for source in sources]
    assert len(set(identities)) == 3
    assert identities == [identity_of(*source) for source in sources]
    assert not [one for one in identities if "s3cret" in one or len(one) != 64]
