"""The ipset messages: byte by byte what the ipset tool sends, and parsers that survive anything.

The bytes are those that ipset 7.17 sent for the command above each case (seen with strace), with the sequence
number 0, and unlike the tool's: revision 3, the prefix length also for a /32, no line number in the head,
a timeout also in DEL (which the kernel passes over). Little-endian headers: the cases hold on x86 and ARM.
"""

import math
import re
import subprocess
import sys
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.netns import run

from ringfence.firewall.contract import Element
from ringfence.firewall.ipset import messages
from ringfence.netlink.connection import NetlinkConnection, NetlinkMessageError, parse
from ringfence.values.ban import Scope

HEAD = "02000000 05000100 07000000 "
SET4 = "0f000200 72696e67 66656e63 65340000 "
SET6 = "0f000200 72696e67 66656e63 65360000 "
NEW = "12000200 72696e67 66656e63 652d6e65 77000000 "
HASH_NET = "0d000300 68617368 3a6e6574 00000000 "

GOLDEN = {
    # (sent before each command)
    "protocol": (messages.protocol(), "1c000000 01060500 00000000 00000000" + HEAD),
    # (sent before `ipset create`)
    "type": (
        messages.type_query(messages.SET_TYPE),
        "34000000 0d060500 00000000 00000000" + HEAD + HASH_NET + "05000500 02000000",
    ),
    # ipset create ringfence4 hash:net family inet timeout 0 counters hashsize 4096 maxelem 262144
    "create": (
        messages.create("ringfence4", 4, hashsize=4096, maxelem=262_144),
        "70000000 02060506 00000000 00000000"
        + HEAD
        + SET4
        + HASH_NET
        + "05000400 03000000 05000500 02000000 24000780 08000640 00000000 08000840 00000008"
        "08001240 00001000 08001340 00040000",
    ),
    # ipset create ringfence6 hash:net family inet6 timeout 0 counters hashsize 1024 maxelem 65536
    "create IPv6": (
        messages.create("ringfence6", 6, hashsize=1024, maxelem=65_536),
        "70000000 02060506 00000000 00000000"
        + HEAD
        + SET6
        + HASH_NET
        + "05000400 03000000 05000500 0a000000 24000780 08000640 00000000 08000840 00000008"
        "08001240 00000400 08001340 00010000",
    ),
    # printf 'add ringfence4 192.0.2.0/24 timeout 60\nadd ringfence4 198.51.100.7/32 timeout 600\n' |
    #     ipset restore -exist
    "add": (
        messages.add("ringfence4", [(ip_network("192.0.2.0/24"), 60), (ip_network("198.51.100.7"), 600)]),
        "88000000 09060500 00000000 00000000"
        + HEAD
        + SET4
        + "08000940 00000000 54000880"
        + "28000780 0c000180 08000140 c0000200 05000300 18000000 08000640 0000003c 08000940 00000001"
        + "28000780 0c000180 08000140 c6336407 05000300 20000000 08000640 00000258 08000940 00000002",
    ),
    # echo add ringfence6 2001:db8::/64 timeout 600 | ipset restore -exist
    "add IPv6": (
        messages.add("ringfence6", [(ip_network("2001:db8::/64"), 600)]),
        "6c000000 09060500 00000000 00000000"
        + HEAD
        + SET6
        + "08000940 00000000 38000880 34000780 18000180 14000240 20010db8 00000000 00000000 00000000"
        "05000300 40000000 08000640 00000258 08000940 00000001",
    ),
    # echo del ringfence4 192.0.2.0/24 | ipset restore -exist
    "delete": (
        messages.delete("ringfence4", [ip_network("192.0.2.0/24")]),
        "60000000 0a060500 00000000 00000000"
        + HEAD
        + SET4
        + "08000940 00000000 2c000880 28000780 0c000180 08000140 c0000200 05000300 18000000"
        "08000640 00000000 08000940 00000001",
    ),
    # ipset list ringfence4
    "list": (messages.list_elements("ringfence4"), "2c000000 07060503 00000000 00000000" + HEAD + SET4),
    # ipset list -terse ringfence4
    "list head": (
        messages.list_header("ringfence4"),
        "34000000 07060503 00000000 00000000" + HEAD + SET4 + "08000640 00000004",
    ),
    # ipset create ringfence-flood6 hash:ip family inet6 netmask 64 timeout 0 counters maxelem 16384
    "create flood": (
        messages.create_addresses("ringfence-flood6", 6, maxelem=16_384, prefix=64),
        "74000000 02060506 00000000 00000000"
        + HEAD
        + "15000200 72696e67 66656e63 652d666c 6f6f6436 00000000 0c000300 68617368 3a697000"
        "05000400 01000000 05000500 0a000000 24000780 08000640 00000000 08000840 00000008 08001340 00004000"
        "05001400 40000000",
    ),
    # ipset create ringfence-flows4 hash:ip,port timeout 0 counters maxelem 1000000
    "create flows": (
        messages.create_flows("ringfence-flows4", 4, maxelem=1_000_000),
        "74000000 02060506 00000000 00000000"
        + HEAD
        + "15000200 72696e67 66656e63 652d666c 6f777334 00000000 11000300 68617368 3a69702c 706f7274 00000000"
        "05000400 02000000 05000500 02000000 1c000780 08000640 00000000 08000840 00000008 08001340 000f4240",
    ),
    # ipset create ringfence-new hash:net hashsize 1024 maxelem 2048
    "create without timeouts": (
        messages.create("ringfence-new", 4, hashsize=1024, maxelem=2048, timed=False),
        "64000000 02060506 00000000 00000000"
        + HEAD
        + NEW
        + HASH_NET
        + "05000400 03000000 05000500 02000000 14000780 08001240 00000400 08001340 00000800",
    ),
    # ipset swap ringfence4 ringfence-new
    "swap": (
        messages.swap("ringfence4", "ringfence-new"),
        "40000000 06060500 00000000 00000000" + HEAD + SET4 + NEW.replace("02", "03", 1),
    ),
    # echo add ringfence4 192.0.2.0/24 | ipset restore -exist
    "add without timeouts": (
        messages.add_permanent("ringfence4", [ip_network("192.0.2.0/24")]),
        "58000000 09060500 00000000 00000000"
        + HEAD
        + SET4
        + "08000940 00000000 24000880 20000780 0c000180 08000140 c0000200 05000300 18000000"
        "08000940 00000001",
    ),
    # ipset test ringfence4 192.0.2.0/24; the tool leaves the line number out
    "test": (
        messages.contains("ringfence4", ip_network("192.0.2.0/24")),
        "4c000000 0b060500 00000000 00000000"
        + HEAD
        + SET4
        + "20000780 0c000180 08000140 c0000200 05000300 18000000 08000940 00000000",
    ),
    # ipset destroy ringfence4
    "destroy": (messages.destroy("ringfence4"), "2c000000 03060500 00000000 00000000" + HEAD + SET4),
}

# ipset create a4 hash:net timeout 0 counters; ipset add a4 192.0.2.1 timeout 600 packets 3 bytes 300
# ipset add a4 198.51.100.0/24; ipset list a4
LISTED4 = bytes.fromhex(
    "0c010000 07060200 01000000 c32e0000 02000000 05000100 07000000 07000200 61340000"
    + HASH_NET
    + "05000500 02000000 05000400 07000000 06000b40 00000000 4c000780 08001240 00000400 08001340 00010000"
    "05001500 0c000000 08001140 56f31495 08001940 00000000 08001a40 00000288 08001840 00000002"
    "08000640 00000000 08000840 00000008 74000880"
    "38000780 0c000180 08000100 c0000201 05000300 20000000 08000640 00000257"
    "0c001840 00000000 0000012c 0c001940 00000000 00000003"
    "38000780 0c000180 08000100 c6336400 05000300 18000000 08000640 00000000"
    "0c001840 00000000 00000000 0c001940 00000000 00000000"
)
# ipset create a6 hash:net family inet6 timeout 0 counters; ipset add a6 2001:db8:1::/64 timeout 600
LISTED6 = bytes.fromhex(
    "e0000000 07060200 02000000 c32e0000 02000000 05000100 07000000 07000200 61360000"
    + HASH_NET
    + "05000500 0a000000 05000400 07000000 06000b40 00010000 4c000780 08001240 00000400 08001340 00010000"
    "05001500 0c000000 08001140 b260d0f9 08001940 00000000 08001a40 00000558 08001840 00000001"
    "08000640 00000000 08000840 00000008 48000880"
    "44000780 18000180 14000200 20010db8 00010000 00000000 00000000 05000300 40000000 08000640 00000258"
    "0c001840 00000000 00000000 0c001940 00000000 00000000"
)
# ipset create c4 hash:net timeout 0 counters comment; ipset add c4 192.0.2.1 timeout 600 comment hi
# ipset add c4 10.0.0.0/8 nomatch
LISTED_WITH_COMMENTS = bytes.fromhex(
    "1c010000 07060200 03000000 c32e0000 02000000 05000100 07000000 07000200 63340000"
    + HASH_NET
    + "05000500 02000000 05000400 07000000 06000b40 00020000 4c000780 08001240 00000400 08001340 00010000"
    "05001500 0c000000 08001140 d8d90e58 08001940 00000000 08001a40 000002bb 08001840 00000002"
    "08000640 00000000 08000840 00000018 84000880"
    "40000780 0c000180 08000100 c0000201 05000300 20000000 08000640 00000258"
    "0c001840 00000000 00000000 0c001940 00000000 00000000 07001a00 68690000"
    "40000780 0c000180 08000100 0a000000 05000300 08000000 08000840 00000004 08000640 00000000"
    "0c001840 00000000 00000000 0c001940 00000000 00000000"
)


@pytest.mark.skipif(sys.byteorder != "little", reason="the recorded headers are little-endian")
@pytest.mark.parametrize("name", GOLDEN)
def test_messages_equal_those_of_ipset(name: str) -> None:
    """Each message equals that of the ipset tool, byte by byte."""
    message, expected = GOLDEN[name]

    assert message.hex(" ", -4) == bytes.fromhex(expected).hex(" ", -4)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            LISTED4,
            (
                Element(ip_network("192.0.2.1"), 599, 3, 300),
                Element(ip_network("198.51.100.0/24"), math.inf, 0, 0),
            ),
        ),
        (LISTED6, (Element(ip_network("2001:db8:1::/64"), 600, 0, 0),)),
        (LISTED_WITH_COMMENTS, (Element(ip_network("192.0.2.1"), 600, 0, 0),)),
    ],
    ids=["IPv4", "IPv6", "comments and nomatch"],
)
def test_a_dump_is_read_with_its_elements(message: bytes, expected: tuple[Element, ...]) -> None:
    """A dump contains each network with its remaining time and counters, and no exceptions."""
    assert messages.parse_elements(message) == expected


@pytest.mark.parametrize("message", [LISTED4, LISTED6], ids=["IPv4", "IPv6"])
def test_both_ways_of_reading_a_dump_agree(message: bytes) -> None:
    """The fast parser of the usual layout returns the same as the attribute-by-attribute one."""
    adt = parse(message, messages.Command.LIST)[messages._Attr.ADT]

    quick = [
        found
        for layout in messages._LAYOUTS
        if (found := messages._regular(adt, Scope.FULL, *layout)) is not None
    ]

    assert quick == [tuple(messages._irregular(adt, Scope.FULL))]


def test_a_header_is_parsed() -> None:
    """The header of a set contains its type, IP version, options and size."""
    expected = messages.IpsetHeader(
        name="a4",
        type_name="hash:net",
        version=4,
        timeout=True,
        counters=True,
        elements=2,
        references=0,
    )

    assert messages.parse_header(LISTED4) == expected


@pytest.mark.parametrize("message", [LISTED4, LISTED6, LISTED_WITH_COMMENTS])
def test_a_truncated_dump_is_an_error(message: bytes) -> None:
    """A truncated dump is a NetlinkMessageError, at every length."""
    for length in range(len(message)):
        with pytest.raises(NetlinkMessageError):
            messages.parse_elements(message[:length])


@pytest.mark.parametrize("message", [LISTED4, LISTED6, LISTED_WITH_COMMENTS])
def test_a_truncated_dump_has_no_partial_elements(message: bytes) -> None:
    """A truncated dump with an adjusted length has no partial elements, or is a NetlinkMessageError."""
    for length in range(len(message)):
        try:
            elements = messages.parse_elements(length.to_bytes(4, sys.byteorder) + message[4:length])
        except NetlinkMessageError:
            continue

        assert elements == ()


@given(st.binary(max_size=200), st.integers(0, len(LISTED4)), st.integers(0, 255))
def test_changed_dumps_are_parsed_or_refused(tail: bytes, position: int, value: int) -> None:
    """A dump with a changed byte or appended bytes is parsed, or is a NetlinkMessageError."""
    spoilt = bytearray(LISTED4[:position] + bytes([value]) + LISTED4[position + 1 :] + tail)
    spoilt[:4] = len(spoilt).to_bytes(4, sys.byteorder)
    for read in (messages.parse_elements, messages.parse_header):
        try:
            read(bytes(spoilt))
        except NetlinkMessageError:
            continue


@pytest.mark.parametrize("version", [4, 6])
def test_the_largest_message_fits(version: int) -> None:
    """MAX_ELEMENTS elements fit into the 16 bits of an attribute's length."""
    network = ip_network("192.0.2.0/24" if version == 4 else "2001:db8::/64")
    message = messages.add("ringfence4", [(network, 600)] * messages.MAX_ELEMENTS)

    assert len(message) < 0xFFFF


def test_the_refused_element_is_found() -> None:
    """An error's copy of the request contains the index of the element, or none."""
    request = messages.add("ringfence4", [(ip_network("192.0.2.0/24"), 60)] * 3)
    refused = request.replace(b"\x08\x00\x09\x40\0\0\0\0", b"\x08\x00\x09\x40\0\0\0\3", 1)

    assert [messages.refused_index(message) for message in (request, refused, b"short")] == [None, 2, None]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_tool_lists_the_sets() -> None:
    """The sets that the messages make are shown by `ipset save`, and DESTROY removes them."""
    sent = (
        messages.create("ringfence4", 4, hashsize=4096, maxelem=262_144),
        messages.create("ringfence6", 6, hashsize=1024, maxelem=65_536),
        messages.add("ringfence4", [(ip_network("192.0.2.0/24"), 60), (ip_network("198.51.100.7"), 600)]),
        messages.add("ringfence6", [(ip_network("2001:db8::/64"), 600)]),
        messages.delete("ringfence4", [ip_network("192.0.2.0/24"), ip_network("203.0.113.1")]),
    )
    with NetlinkConnection() as kernel:
        for message in sent:
            kernel.request(message)
        shown = subprocess.run(["ipset", "save"], capture_output=True, text=True, check=True).stdout
        for name in ("ringfence4", "ringfence6"):
            kernel.request(messages.destroy(name))

    shown = re.sub(" (initval|bucketsize) [0-9a-fx]+", "", shown).replace(" timeout 599 ", " timeout 600 ")
    assert shown.splitlines() == [
        "create ringfence4 hash:net family inet hashsize 4096 maxelem 262144 timeout 0 counters",
        "add ringfence4 198.51.100.7 timeout 600 packets 0 bytes 0",
        "create ringfence6 hash:net family inet6 hashsize 1024 maxelem 65536 timeout 0 counters",
        "add ringfence6 2001:db8::/64 timeout 600 packets 0 bytes 0",
    ]
    assert run("ipset", "save") == ""
