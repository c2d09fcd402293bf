"""A program that sends datagrams with forged senders, in the attacker's namespace; prints a line of JSON.

    ip netns exec NS python -m tests.support.forger --senders 198.19.0.1,50000 --each 6 --rate 3000

Each address of a range seems to send ``--each`` requests. The senders take turns, and there are three
kinds of REGISTER: for an unknown account with a digest that answers no challenge, for a known account with
such a digest, and for an unknown account without a digest. No host has these addresses. Answers go to a port
on which no program listens: ``quiet`` makes the kernel drop them silently, because otherwise each answer
would cause an ICMP error.

The numbers are limited. It sends only from and to the laboratory's networks.
"""

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, ip_network

from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, inside

FROM_PORT = 5099
"""The source port of the forged requests, which no phone of the laboratory uses."""

MOST_PACKETS = 600_000
MOST_SECONDS = 400.0
_NETWORK = ip_network("198.18.0.0/15")
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_DIGEST = (
    'Authorization: Digest username="{account}", realm="asterisk", nonce="1700000000/{nonce}", '
    'uri="sip:198.18.0.1", response="{nonce}", algorithm=MD5\r\n'
)


@dataclass
class Sent:
    """The number of datagrams sent, and the seconds that it took."""

    packets: int
    seconds: float


def request(sender: IPv4Address, number: int, mark: str) -> bytes:
    """Return the REGISTER with this ``number`` that ``sender`` seems to make."""
    known, answers = number % 3 == 1, number % 3 != 2
    account = "alice" if known else f"nobody{number}"
    lines = [
        f"REGISTER sip:{PBX_IPV4} SIP/2.0",
        f"Via: SIP/2.0/UDP {sender}:{FROM_PORT};rport;branch=z9hG4bK{mark}{int(sender):x}-{number}",
        "Max-Forwards: 70",
        f"From: <sip:{account}@{PBX_IPV4}>;tag={number}",
        f"To: <sip:{account}@{PBX_IPV4}>",
        f"Call-ID: {mark}-{sender}-{number}",
        "CSeq: 1 REGISTER",
        f"Contact: <sip:{account}@{sender}:{FROM_PORT}>",
        (_DIGEST.format(account=account, nonce=f"{int(sender):016x}{number:016x}") if answers else "")
        + "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def datagram(sender: IPv4Address, payload: bytes, port: int = 5060) -> bytes:
    """Return an IPv4 packet; the kernel fills in its length and checksum, and UDP needs none."""
    header = _IP.pack(
        0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, sender.packed, IPv4Address(PBX_IPV4).packed
    )
    return header + _UDP.pack(FROM_PORT, port, _UDP.size + len(payload), 0) + payload


def datagrams(
    first: IPv4Address, senders: int, each: int, *, step: int = 1, one_byte: bool = False
) -> Iterator[bytes]:
    """Yield all datagrams: the first one of each sender, then the second one of each sender, and so on."""
    mark = os.urandom(3).hex()
    for number in range(each):
        for offset in range(senders):
            sender = first + offset * step
            yield datagram(sender, b"x" if one_byte else request(sender, number, mark))


def send(
    first: IPv4Address, senders: int, each: int, rate: float, *, step: int = 1, one_byte: bool = False
) -> Sent:
    """Send all datagrams, ``rate`` per second; ``one_byte``: no requests, but one byte in each.

    ``step`` is the distance between two senders.
    """
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in datagrams(first, senders, each, step=step, one_byte=one_byte):
            early = began + sent / rate - time.monotonic()
            if early > 0.002:  # the kernel does not sleep for less
                time.sleep(early)
            elif early < -MOST_SECONDS:
                break
            raw.sendto(packet, (PBX_IPV4, 0))
            sent += 1
    return Sent(sent, time.monotonic() - began)


def quiet(lab: Lab) -> None:
    """Silently drop the answers to forged requests in the attacker's namespace."""
    rule = f"iptables -t raw -I PREROUTING -p udp --dport {FROM_PORT} -j DROP"
    subprocess.run(lab.network.in_attacker(*rule.split()), check=True, timeout=10)


class Forger:
    """A forger that runs in the attacker's namespace while the test continues."""

    def __init__(
        self,
        lab: Lab,
        first: str,
        senders: int,
        each: int,
        rate: float,
        *,
        step: int = 1,
        one_byte: bool = False,
    ) -> None:
        command = inside(
            lab.network.attacker, sys.executable, "-m", "tests.support.forger",
            "--senders", f"{first},{senders}", "--each", str(each), "--rate", str(rate),
            "--step", str(step), *(["--one-byte"] if one_byte else []),
        )  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    @property
    def at_work(self) -> bool:
        """Whether it still sends."""
        return self._process.poll() is None

    def sent(self) -> Sent:
        """Wait for its end, and return what it has sent."""
        output, _ = self._process.communicate(timeout=MOST_SECONDS)
        if self._process.returncode:
            raise RuntimeError(f"the forger failed with exit status {self._process.returncode}")
        return Sent(**json.loads(output))

    def stop(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.communicate()


def _senders(text: str) -> tuple[IPv4Address, int]:
    first, _, number = text.partition(",")
    return IPv4Address(first), int(number)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.forger", description="Forger of the lab.")
    parser.add_argument("--senders", type=_senders, required=True, help="FIRST,NUMBER")
    parser.add_argument("--each", type=int, default=6, help="requests of each")
    parser.add_argument("--rate", type=float, default=2_000.0, help="so many a second")
    parser.add_argument("--step", type=int, default=1, help="the distance between two senders")
    parser.add_argument("--one-byte", action="store_true", help="no requests, but one byte in each datagram")
    options = parser.parse_args()
    first, senders = options.senders
    packets = senders * options.each
    if first not in _NETWORK or first + (senders - 1) * options.step not in _NETWORK:
        raise ValueError(f"the forger only forges addresses of the laboratory: {_NETWORK}")
    if packets > MOST_PACKETS or packets / options.rate > MOST_SECONDS:
        raise ValueError(f"at most {MOST_PACKETS} packets in at most {MOST_SECONDS:.0f} s")
    more = {"step": options.step, "one_byte": options.one_byte}
    print(json.dumps(asdict(send(first, senders, options.each, options.rate, **more))))


if __name__ == "__main__":
    main()
