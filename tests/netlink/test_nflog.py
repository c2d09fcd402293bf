"""Messages of the packet log, byte by byte (<linux/netfilter/nfnetlink_log.h>)."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.netlink.nflog import Acknowledged, Logged, bind_request, missing, read_datagram

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="golden bytes of a little-endian machine")

# The message of kernel 6.18 for the datagram "SIP" in raw OUTPUT, group 21063, its second packet.
PACKET = bytes.fromhex(
    "68000000 0004 0000 00000000 00000000"  # length 104, ULOG/PACKET, no flags, sequence and port 0
    "02 00 5247"  # AF_INET, version 0, group 0x5247
    "0800 0100 0800 03 00"  # PACKET_HDR: IPv4, hook 3 (LOCAL_OUT)
    "0500 0a00 00 000000"  # PREFIX: "" and padding
    "0800 0500 00000002"  # IFINDEX_OUTDEV: 2
    "0800 0b00 00000000"  # UID: 0
    "0800 0e00 00000000"  # GID: 0
    "0800 0c00 00000001"  # SEQ: 1
    "2300 0900"  # PAYLOAD: 31 bytes, and one of padding
    "4500001f60d8400040114ccfc6120001c6120101"  # IPv4 198.18.0.1 to 198.18.1.1
    "13c413c6000b8d43 534950 00"  # UDP 5060 to 5062, "SIP"
)
PAYLOAD = PACKET[72:103]


def test_the_bind_request() -> None:
    """One message binds the group and requests whole packets, delivered one by one, numbered."""
    assert bind_request(21063) == bytes.fromhex(
        "40000000 0104 0500 00000000 00000000"  # length 64, ULOG/CONFIG, REQUEST|ACK
        "00 00 5247"  # AF_UNSPEC, version 0, group 0x5247, big-endian
        "0500 0100 01 000000"  # CFG_CMD: BIND
        "0a00 0200 0000fffb 02 00 0000"  # CFG_MODE: 65531 bytes, COPY_PACKET
        "0800 0400 00000001"  # CFG_TIMEOUT: a hundredth of a second
        "0800 0500 00000001"  # CFG_QTHRESH: one packet
        "0600 0600 0001 0000"  # CFG_FLAGS: SEQ
    )


def test_a_packet_is_read() -> None:
    """A packet has a number and a payload without padding; ``own`` marks a packet of this host."""
    assert list(read_datagram(PACKET)) == [Logged(1, PAYLOAD, own=True, user=0)]


def test_a_packet_that_passes_through_is_not_the_hosts_own() -> None:
    """Hook 0 is PREROUTING; a packet without the packet header is never marked as the host's own."""
    passing = PACKET.replace(bytes.fromhex("080001000800 03"), bytes.fromhex("080001000800 00"))
    strange = PACKET.replace(bytes.fromhex("08000100"), bytes.fromhex("08006300"))

    assert list(read_datagram(passing)) == [Logged(1, PAYLOAD, own=False, user=0)]
    assert list(read_datagram(strange)) == [Logged(1, PAYLOAD, own=False, user=0)]


def test_a_packet_without_a_socket_has_no_user() -> None:
    """Without the attribute, or with another length, the user is unknown; root is 0."""
    for other in ("0800 6300 00000000", "0600 0b00 0000 0000"):
        packet = PACKET.replace(bytes.fromhex("0800 0b00 00000000"), bytes.fromhex(other))
        assert list(read_datagram(packet)) == [Logged(1, PAYLOAD, own=True)]
    packet = PACKET.replace(bytes.fromhex("0800 0b00 00000000"), bytes.fromhex("0800 0b00 0000fffe"))
    assert list(read_datagram(packet)) == [Logged(1, PAYLOAD, own=True, user=65_534)]


def test_the_prefix_of_the_log_rule() -> None:
    """The prefix ends at its NUL, or with the attribute; without the attribute it is empty."""
    plain = bytes.fromhex("0500 0a00 00 000000")
    for value, prefix in ((b"observed\0", b"observed"), (b"observed", b"observed"), (b"\0observed", b"")):
        attribute = struct.pack("=HH", 4 + len(value), 10) + value + b"\0" * (-len(value) % 4)
        packet = PACKET.replace(plain, attribute)
        packet = struct.pack("=I", len(packet)) + packet[4:]
        assert list(read_datagram(packet)) == [Logged(1, PAYLOAD, own=True, prefix=prefix, user=0)]
    other = PACKET.replace(plain, bytes.fromhex("0500 6300 00 000000"))
    assert list(read_datagram(other)) == [Logged(1, PAYLOAD, own=True, user=0)]


def test_several_messages_in_a_datagram() -> None:
    """An acknowledgement, a refusal and a packet are read in order; other messages are skipped."""
    done = bytes.fromhex("10000000 0300 0000 00000000 00000000")  # NLMSG_DONE
    error = bytes.fromhex("14000000 0200 0000 00000000 00000000")  # NLMSG_ERROR
    refused = error + struct.pack("=i", -22)

    assert list(read_datagram(error + b"\0\0\0\0" + done + refused + PACKET)) == [
        Acknowledged(0),
        Acknowledged(22),
        Logged(1, PAYLOAD, own=True, user=0),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        PACKET[:-1],
        PACKET[:10],
        b"\x0f" + PACKET[1:],
        b"\xff" + PACKET[1:],
        PACKET[:68] + b"\xff" + PACKET[69:],
        PACKET[:68] + b"\x03" + PACKET[69:],
        PACKET[:70] + b"\x08" + PACKET[71:],
    ],
    ids=["cut", "cut head", "short", "long", "long attribute", "short attribute", "no payload"],
)
def test_an_invalid_message_yields_none(broken: bytes) -> None:
    """A wrong length, or a packet without a payload, yields None."""
    assert list(read_datagram(broken)) == [None]


def test_a_packet_without_a_number() -> None:
    """A packet of a group without numbers is read too."""
    assert list(read_datagram(PACKET.replace(bytes.fromhex("08000c00"), bytes.fromhex("08006300")))) == [
        Logged(None, PAYLOAD, own=True, user=0)
    ]


@given(st.binary(max_size=200), st.integers(0, 104), st.integers(0, 104))
def test_no_bytes_raise(noise: bytes, cut: int, start: int) -> None:
    """Arbitrary bytes raise no exception, and reading them ends."""
    for datagram in (noise, PACKET[:cut] + noise, PACKET[:start] + noise + PACKET[start:]):
        assert len(list(read_datagram(datagram))) <= 1 + len(datagram) // 16


@pytest.mark.parametrize(
    ("last", "number", "lacking"),
    [(None, 0, 0), (None, 3, 3), (0, 1, 0), (7, 9, 1), (2**32 - 1, 0, 0), (2**32 - 2, 1, 2)],
)
def test_missing_numbers_are_counted(last: int | None, number: int, lacking: int) -> None:
    """Missing numbers are counted; a binding begins with 0, and numbers wrap at 32 bits."""
    assert missing(last, number) == lacking
