"""Other places of Asterisk than alone on the host of ringfence: in a container, or with a second Asterisk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dns.resolver import Resolver
from tests.support import netns, open_pbx
from tests.support.asterisk import SECRET, Asterisk, tree_of
from tests.support.asterisk_files import MANAGER_USER, PASSWORD, Kind
from tests.support.lab import RELEASES, Lab
from tests.support.network import PBX_IPV4, PBX_IPV6, ROUTED_IPV4, ROUTER_IPV4, SECOND_IPV4, Network

SECOND_PORT = 5070
"""The port of chan_sip of the second Asterisk."""
_SECOND_MANAGER_PORT = 5048
_HOST, _BRIDGE = "198.18.3.1", "198.18.0.6"
_PERMITTED = f"\n[{MANAGER_USER}](+)\npermit = {_BRIDGE}/255.255.255.255\n"
_PORTS = "5060", "5061/tcp", "5080", "5081/tcp", "8088/tcp", "5038/tcp"
"""ringfence cannot find the ports of a container."""
_SECOND = {
    "manager.conf": f"[general](+)\nport = {_SECOND_MANAGER_PORT}\ntlsenable = no\n",
    "modules.conf": "noload = chan_iax2.so\n",
    "sip.conf": f"""
[general](+)
udpbindaddr = {PBX_IPV4}:{SECOND_PORT}
tcpbindaddr = {PBX_IPV4}:{SECOND_PORT}
tcpauthlimit = 2000
tcpauthtimeout = 600

[carol]
type = friend
host = dynamic
context = internal
transport = udp,tcp
secret = {PASSWORD}
""",
}


@contextmanager
def alone(release: str) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """Yield an Asterisk on the host, and the settings of its daemon."""
    with Lab.made(release, open_pbx.configured(release)) as lab:
        yield lab, {}


@contextmanager
def contained(release: str) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """Yield an Asterisk in a container, whose bridge has the addresses that usually are the host's."""
    servers = {*map(str, Resolver(str(tree_of(release) / "etc" / "resolv.conf")).nameservers)}
    with Network() as network, netns.neighbour() as container:
        with netns.inside(network.pbx):
            netns.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv4.conf.lan.proxy_arp=1")
            lines = (
                "address flush dev lan",
                f"address add {_HOST}/16 dev lan",
                f"route replace {ROUTED_IPV4} via {ROUTER_IPV4}",
                "link add br9 type bridge",
                "link set br9 up",
                f"address add {_BRIDGE}/29 dev br9",
                f"link add near9 type veth peer name eth0 netns {container}",
                "link set near9 master br9 up",
            )
            netns.run("ip", "-batch", "-", text="\n".join(lines))
        own = (
            "link set eth0 up",
            f"address add {PBX_IPV4}/29 dev eth0",
            f"address add {SECOND_IPV4}/29 dev eth0",
            f"address add {PBX_IPV6}/64 dev eth0 nodad",
            f"route add default via {_BRIDGE}",
            # With a route, chan_sip waits seconds for a name server that does not answer, and answers nobody.
            *(f"route add unreachable {server}" for server in servers if "." in server),
        )
        netns.run("ip", "-n", container, "-batch", "-", text="\n".join(own))
        texts = open_pbx.configured(release)
        texts["manager.conf"] += _PERMITTED
        with Asterisk(tree_of(release), container, RELEASES[release], extra=texts) as asterisk:
            firewall = {"backend": "ipset", "sip_ports": [*_PORTS]}
            yield Lab(network, asterisk), {"ami": {"host": PBX_IPV4}, "firewall": firewall}


@contextmanager
def with_a_second(_: str) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """Yield Asterisk 22 with PJSIP beside an Asterisk 16 with chan_sip, and both for the daemon."""
    with (
        Lab.made("22", open_pbx.configured("22")) as lab,
        Asterisk(tree_of("16"), lab.network.pbx, Kind.CHAN_SIP, extra=_SECOND) as second,
    ):
        ami = {"username": MANAGER_USER, "secret": SECRET, "port": _SECOND_MANAGER_PORT}
        logs = {"paths": [str(second.logs / "ringfence")], "timezone": "UTC"}
        yield lab, {"others": [{"name": "second", "ami": ami, "logs": logs, "wire": {"enabled": True}}]}


BEDS = {"": alone, "container": contained, "two": with_a_second}
"""The places of Asterisk by the setting of the cases that run there; all others run with the first."""
