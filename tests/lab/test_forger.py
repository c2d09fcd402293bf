"""The forger's packets, and its limits: it forges only addresses of the laboratory. Nothing is sent here."""

from ipaddress import IPv4Address, ip_address

import pytest
from tests.support.forger import FROM_PORT, datagram, datagrams, main, request
from tests.support.network import PBX_IPV4

SENDER = IPv4Address("198.19.0.7")


def test_a_datagram_seems_to_come_from_its_sender() -> None:
    """Addresses, ports and length are at their positions of IPv4 and UDP."""
    payload = b"hello"
    packet = datagram(SENDER, payload)

    assert (packet[9], ip_address(packet[12:16]), str(ip_address(packet[16:20]))) == (17, SENDER, PBX_IPV4)
    ports = int.from_bytes(packet[20:22]), int.from_bytes(packet[22:24])
    assert (*ports, int.from_bytes(packet[24:26])) == (FROM_PORT, 5060, 8 + len(payload))
    assert packet.endswith(payload)


def test_every_sender_sends_once_before_any_sends_again() -> None:
    """Each turn has one packet of each sender, so that all come near a threshold at the same time."""

    def senders(step: int) -> list[object]:
        return [ip_address(packet[12:16]) for packet in datagrams(SENDER, 3, 2, step=step)]

    assert senders(1) == 2 * [SENDER, SENDER + 1, SENDER + 2]
    assert senders(32) == 2 * [SENDER, SENDER + 32, SENDER + 64]


def test_requests_differ() -> None:
    """No request is a retransmission of another, and two of three have a digest."""
    packets = [request(SENDER, number, "mark") for number in range(6)]

    assert len({packet.split(b"Call-ID: ")[1].split(b"\r\n")[0] for packet in packets}) == len(packets)
    assert [b"Authorization: Digest" in packet for packet in packets] == 2 * [True, True, False]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--senders", "203.0.113.9,1"),
        ("--senders", "198.19.255.250,100"),
        ("--senders", "198.19.250.0,100", "--step", "32"),
        ("--senders", "198.19.0.1,50000", "--each", "100"),
        ("--senders", "198.19.0.1,50000", "--each", "6", "--rate", "10"),
    ],
    ids=["elsewhere", "beyond", "beyond-by-steps", "too-many", "too-long"],
)
def test_it_refuses_what_it_must_not_do(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """It forges no address outside the laboratory, and its number of packets and its time are limited."""
    monkeypatch.setattr("sys.argv", ["forger", *arguments])

    with pytest.raises(ValueError, match=r"of the laboratory|at most"):
        main()
