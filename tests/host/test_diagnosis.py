"""Likely causes of an ineffective ban: their texts, and the facts as read from real namespaces and links."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.netns import neighbour, run

from ringfence.host import diagnosis
from ringfence.host.diagnosis import EVERY, Diagnosis, Facts, Observations, gather, likely_causes
from ringfence.host.processes import network_of, processes
from ringfence.model import Address

STRANGER = ip_address("203.0.113.9")
DOCKER = ip_address("172.17.0.1")

kernel = pytest.mark.kernel
in_netns = pytest.mark.usefixtures("netns")


@pytest.mark.parametrize(
    ("address", "seen", "facts", "beginning", "fix"),
    [
        (
            DOCKER,
            Observations(),
            Facts(own={DOCKER: "docker0"}, bridges=frozenset({"docker0"}), docker_proxy=True),
            "172.17.0.1 is this host's own address on the bridge docker0: callers reach a container",
            '"userland-proxy": false in /etc/docker/daemon.json',
        ),
        (
            STRANGER,
            Observations(),
            Facts(own={STRANGER: "eth0"}),
            "203.0.113.9 is this host's own address on eth0: something on this host",
            "keep the callers' addresses",
        ),
        (
            DOCKER,
            Observations(),
            Facts(gateways={ip_network("172.17.0.1"): "the gateway of eth0"}),
            "172.17.0.1 is the gateway of eth0: it hands calls on in its own name",
            "run ringfence where the callers' addresses are still seen",
        ),
        (
            ip_address("10.0.0.7"),
            Observations(attempts=40),
            Facts(),
            "every attempt comes from 10.0.0.7, a private address: a proxy or session border controller",
            "put it into [allow] networks",
        ),
        (
            STRANGER,
            Observations(),
            Facts(asterisk_elsewhere=True),
            "Asterisk runs in another network namespace than ringfence (a container)",
            "run ringfence in Asterisk's network namespace",
        ),
        (
            STRANGER,
            Observations(ports=(5038, 5060)),
            Facts(listening=frozenset({22})),
            "nothing listens on port 5038, 5060 in ringfence's network namespace",
            "run ringfence in Asterisk's network namespace",
        ),
        (
            STRANGER,
            Observations(),
            Facts(cards=("eth0", "eth1")),
            "a container has a network card of its own on eth0, eth1 (macvlan)",
            "run ringfence in that container's network namespace",
        ),
        (STRANGER, Observations(), Facts(xdp=("eth0",)), "an XDP program is attached to eth0", "xdp off"),
        (
            STRANGER,
            Observations(attempts=5, others=3, ports=(5038,)),
            Facts(listening=frozenset({5038}), asterisk_here=True, asterisk_elsewhere=True),
            "nothing on this host explains it: 203.0.113.9 may be named by text that its sender wrote",
            "tcpdump -ni any host 203.0.113.9",
        ),
    ],
    ids=["docker", "own", "gateway", "proxy", "container", "not here", "macvlan", "xdp", "nothing"],
)
def test_each_cause_has_a_sentence_and_a_fix(
    address: Address, seen: Observations, facts: Facts, beginning: str, fix: str
) -> None:
    """Each set of facts leads to exactly one cause, and its text contains the fix."""
    [cause] = likely_causes(address, seen, facts)
    assert cause.startswith(beginning)
    assert fix in cause


def test_a_visible_proxy_process_is_named() -> None:
    """The text names docker-proxy if the process is visible; root can see it and the daemon cannot."""
    facts = Facts(own={DOCKER: "docker0"}, bridges=frozenset({"docker0"}), docker_proxy=True)
    assert (
        "through a proxy of this host (docker-proxy runs here)"
        in likely_causes(DOCKER, Observations(), facts)[0]
    )


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        (STRANGER, Observations(attempts=40)),
        (ip_address("10.0.0.7"), Observations(attempts=40, others=1)),
        (ip_address("10.0.0.7"), Observations()),
    ],
    ids=["a public address", "not the only one", "nothing seen"],
)
def test_an_ordinary_sender_is_not_taken_for_a_proxy(address: Address, seen: Observations) -> None:
    """A proxy has a private address, and all attempts come from it."""
    assert "proxy" not in likely_causes(address, seen, Facts())[0]


def test_several_causes_are_named_in_order() -> None:
    """The cause that concerns the address itself comes first."""
    facts = Facts(own={DOCKER: "br-1"}, bridges=frozenset({"br-1"}), asterisk_elsewhere=True, cards=("eth0",))
    causes = likely_causes(DOCKER, Observations(attempts=9), facts)
    assert [cause.split(" ")[0] for cause in causes] == ["172.17.0.1", "every", "Asterisk", "a"]


@contextmanager
def asterisk_named(folder: Path, *prefix: str) -> Iterator[int]:
    """Run a process named asterisk, started through ``prefix``; return its process id."""
    program = folder / "asterisk"
    shutil.copy("/bin/sleep", program)
    before = set(processes("asterisk"))
    process = subprocess.Popen([*prefix, str(program), "60"])
    try:
        until(lambda: process.pid in set(processes("asterisk")) - before, "the process")
        yield process.pid
    finally:
        process.kill()
        process.wait()


@kernel
@in_netns
def test_an_asterisk_in_another_namespace_is_seen(tmp_path: Path) -> None:
    """Root sees the namespaces of all processes and distinguishes an Asterisk that also runs here."""
    with neighbour() as container:
        (tmp_path / "a").mkdir()
        with asterisk_named(tmp_path / "a", "ip", "netns", "exec", container) as elsewhere:
            assert network_of(elsewhere) != network_of()
            assert gather().asterisk_elsewhere
            assert not gather().asterisk_here
            assert (
                "Asterisk runs in another network namespace"
                in likely_causes(STRANGER, Observations(), gather())[0]
            )
            with asterisk_named(tmp_path) as here:
                assert network_of(here) == network_of()
                assert gather().asterisk_here
                assert "Asterisk runs" not in likely_causes(STRANGER, Observations(), gather())[0]


@kernel
@in_netns
def test_the_hosts_own_addresses_are_known_with_their_links() -> None:
    """A docker bridge is recognized by its link kind, so its name does not matter."""
    run(
        *("ip", "-batch", "-"),
        text="link add docker9 type bridge\naddress add 172.17.0.1/16 dev docker9\nlink set docker9 up\n"
        "link add eth9 type veth peer name far9\naddress add 192.0.2.7/24 dev eth9\nlink set eth9 up\n"
        "route add default via 192.0.2.1 dev eth9\n",
    )
    facts = gather()
    assert facts.own[DOCKER] == "docker9"
    assert facts.own[ip_address("192.0.2.7")] == "eth9"
    assert facts.bridges == {"docker9"}
    assert facts.gateways == {ip_network("192.0.2.1"): "the gateway of eth9"}
    assert (facts.cards, facts.xdp) == ((), ())
    assert "on the bridge docker9" in likely_causes(DOCKER, Observations(), facts)[0]


@kernel
@in_netns
def test_a_containers_card_on_a_link_is_seen_from_outside() -> None:
    """A macvlan in another namespace counts; a local one and entries of bridge or tunnel tables do not."""
    lines = (
        "link add eth9 type veth peer name far9\nlink set eth9 up\nlink set far9 up\n"
        "link add br9 type bridge\nlink set far9 master br9\nlink set br9 up\n"
        "link add vx9 type vxlan id 9 dstport 4789 remote 192.0.2.9\nlink set vx9 up\n"
        "link add mv9 link eth9 type macvlan mode bridge\nlink set mv9 up\n"
    )
    run("ip", "-batch", "-", text=lines)
    run("bridge", "fdb", "add", "02:00:00:00:00:09", "dev", "vx9", "dst", "192.0.2.9", "self", "permanent")
    assert gather().cards == ()
    with neighbour() as container:
        run("ip", "link", "set", "mv9", "netns", container)
        run("ip", "-n", container, "link", "set", "mv9", "up")
        assert gather().cards == ("eth9",)


@kernel
@in_netns
def test_ports_that_are_listened_on_are_known() -> None:
    """TCP and UDP ports are known; a missing port of AMI or SIP indicates a container."""
    with (
        socket.create_server(("127.0.0.1", 5038)),
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("::1", 5060))
        assert gather().listening == {5038, 5060}


def test_a_program_on_a_link_is_known() -> None:
    """The kernel's messages distinguish a link with an XDP program from one without."""

    class Message(dict[str, object]):
        """A message of pyroute2 about one link."""

    none = Message(index=2, ifname="eth0", xdp={"attached": None})
    some = Message(index=3, ifname="eth1", xdp={"attached": "xdpdrv"})
    assert [diagnosis._link(message).xdp for message in (none, some)] == [False, True]


def test_hidden_facts_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diagnosis without facts still names a command to run."""

    def failing(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(diagnosis, "IPRoute", failing)
    monkeypatch.setattr(diagnosis, "listening_sockets", failing)
    monkeypatch.setattr(diagnosis, "processes", lambda _name: iter(()))
    assert gather() == Facts()
    assert "tcpdump" in likely_causes(STRANGER, Observations(), gather())[0]


def test_the_host_is_inspected_at_most_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with many banned addresses causes at most one reading of the host per minute."""
    now = [0.0]
    looks: list[float] = []

    def look() -> Facts:
        looks.append(now[0])
        return Facts(xdp=(f"eth{len(looks)}",))

    monkeypatch.setattr(diagnosis, "gather", look)

    async def main() -> None:
        asked = Diagnosis(lambda: now[0])
        first = await asyncio.gather(*(asked.likely_causes(STRANGER, Observations()) for _ in range(9)))
        assert all("eth1" in causes[0] for causes in first)
        now[0] = EVERY - 0.1
        assert "eth1" in (await asked.likely_causes(STRANGER, Observations()))[0]
        now[0] = EVERY
        assert "eth2" in (await asked.likely_causes(STRANGER, Observations()))[0]

    asyncio.run(main())
    assert looks == [0.0, EVERY]
