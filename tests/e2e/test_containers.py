"""An Asterisk in a container: the daemon sees its challenges as they pass through the guarded host.

The container is a namespace on a bridge. It sends the challenges that were recorded from PJSIP.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from tests.support.daemon import Guard, until
from tests.support.netns import inside, neighbour, run
from tests.support.network import Network, socket_in

from ringfence.alarm_codes import is_about_setup

pytestmark = pytest.mark.kernel

NETWORKS = ["10.9.9.0/24", "fd00:9::/64"]
ATTACKERS = {4: "198.18.1.1", 6: "fd00:18::a"}
# Nothing listens there, but the container with this address is Asterisk's.
PBXS: list[dict[str, Any]] = [
    {
        "name": name,
        "ami": {"host": host, "port": 1, "secret": "x"},
        "logs": {"paths": []},
        "wire": {"enabled": True},
    }
    for name, host in (("pbx", "10.9.9.2"), ("pbx6", "fd00:9::2"))
]
# As recorded from Asterisk 22.10.1: the request's Call-ID is not UTF-8, so Asterisk sends no event about it.
RECORDED = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:45418;rport=45418;received=SENDER;branch=z9hG4bK2\r\n"
    b"Call-ID: a\xff\xfe NUMBER\r\n"
    b"From: <sip:alice@198.18.0.1>;tag=t1\r\n"
    b"To: <sip:alice@198.18.0.1>;tag=z9hG4bK2\r\n"
    b"CSeq: 1 REGISTER\r\n"
    b'WWW-Authenticate: Digest realm="asterisk",nonce="1795163184/71a15bdda2226e05b39c7e947cf7c62a",'
    b'opaque="5e7b972e2fe7ac11",algorithm=MD5,qop="auth"\r\n'
    b"Server: Asterisk PBX 22.10.1+dfsg+~cs6.17.60671434-1\r\nContent-Length:  0\r\n\r\n"
)


@frozen
class House:
    """A host with the daemon, and a container on its bridge br9."""

    network: Network
    container: str
    guard: Guard

    def challenge(self, version: int, number: int, source: str = "") -> None:
        """Make the container answer ``number`` requests of the attacker, from the address ``source``."""
        attacker = ATTACKERS[version]
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket_in(self.container, family, socket.SOCK_DGRAM) as asterisk:
            if source:
                asterisk.bind((source, 5060))
            for n in range(number):
                text = RECORDED.replace(b"SENDER", attacker.encode()).replace(b"NUMBER", b"%d" % n)
                asterisk.sendto(text, (attacker, 5062))

    def wire(self) -> dict[str, Any]:
        """Return the wire source from the output of `status`."""
        return next(source for source in self.guard.status()["sources"] if source["name"] == "wire")

    def until_counting(self, *networks: str) -> None:
        """Wait until exactly the containers of these networks count."""
        until(lambda: self.wire()["containers"] == list(networks), f"containers in {networks}")


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> Iterator[House]:
    """Yield a guarded host with a container that has a route."""
    with Network() as network, neighbour() as container:
        with inside(network.pbx):
            run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            lines = (
                "link add br9 type bridge",
                "link set br9 up",
                "address add 10.9.9.1/24 dev br9",
                "address add fd00:9::1/64 dev br9 nodad",
                f"link add near9 type veth peer name eth0 netns {container}",
                "link set near9 master br9 up",
            )
            run("ip", "-batch", "-", text="\n".join(lines))
        own = (
            "link set eth0 up",
            "address add 10.9.9.2/24 dev eth0",
            "address add fd00:9::2/64 dev eth0 nodad",
            "route add default via 10.9.9.1",
            "route add default via fd00:9::1",
        )
        run("ip", "-n", container, "-batch", "-", text="\n".join(own))
        with Guard(tmp_path, prefix=network.in_pbx(), asterisk=PBXS, firewall={"backend": "ipset"}) as guard:
            house = House(network, container, guard)
            until(lambda: house.wire()["state"] == "listening", "the wire")
            yield house


@pytest.mark.parametrize("version", [4, 6])
def test_hidden_guesses_at_an_asterisk_in_a_container_are_banned(house: House, version: int) -> None:
    """The container's challenges name the sender, even if its Asterisk reports no event."""
    house.until_counting(*NETWORKS)
    house.challenge(version, 5)
    until(lambda: house.guard.banned() == {ATTACKERS[version]}, "the ban")

    assert house.wire()["events"] == 5
    assert [alarm for alarm in house.guard.status()["alarms"] if is_about_setup(alarm["code"])] == []


@pytest.mark.parametrize(("version", "second"), [(4, "10.9.9.3"), (6, "fd00:9::3")])
def test_another_container_on_the_bridge_frames_nobody(house: House, version: int, second: str) -> None:
    """Answers from an address that is not Asterisk's neither count nor have a ration; Asterisk's do."""
    house.until_counting(*NETWORKS)
    until(lambda: "event=asterisk.containers" in house.guard.log, "the rules for Asterisk's containers")
    length = 24 if version == 4 else 64
    nodad = ["nodad"] if version == 6 else []
    run("ip", "-n", house.container, "address", "add", f"{second}/{length}", "dev", "eth0", *nodad)
    house.challenge(version, 20, second)
    until(lambda: house.wire()["foreign"] == 20, "the other container's answers")
    assert (house.wire()["events"], house.guard.banned()) == (0, set())
    assert house.guard.ask("status")["rationed"] == 0

    house.challenge(version, 5, "10.9.9.2" if version == 4 else "fd00:9::2")
    until(lambda: house.guard.banned() == {ATTACKERS[version]}, "the ban")
    assert house.wire()["events"] == 5
    until(lambda: house.guard.ask("status")["rationed"] > 0, "the ration of what Asterisk's container sends")


def test_a_bridge_with_other_devices_is_no_evidence(house: House) -> None:
    """While a bridge has other ports than containers, its packets do not count; later they count again."""
    house.until_counting(*NETWORKS)
    run(*house.network.in_pbx("ip", "tuntap", "add", "tap9", "mode", "tap"))
    run(*house.network.in_pbx("ip", "link", "set", "tap9", "master", "br9"))
    house.until_counting()
    house.challenge(4, 20)
    until(lambda: house.wire()["passing"] == 20, "the packets that pass through")

    run(*house.network.in_pbx("ip", "link", "delete", "tap9"))
    house.until_counting(*NETWORKS)
    house.challenge(4, 4)
    until(lambda: house.wire()["events"] == 4, "the container's challenges")

    assert (house.guard.status()["attempts"], house.guard.banned()) == (4, set())
