"""Effects on packets that only the ipset backend has: its full limiter, its log, the previous release."""

import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.cable import CABLES, Cable
from tests.support.flavours import finder, tools_of
from tests.support.netns import run
from tests.support.packets import CHANGES, SIP, ban, changing, datagram, drained_after, ends, flood, plan

from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.ipset import iptables, matches
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
PREVIOUS = """\
*raw
:ringfence-pre - [0:0]
:ringfence-out - [0:0]
-A ringfence-pre -m set --match-set ringfence{0} src -j DROP
-A ringfence-pre -m set --match-set ringfence{0} dst -j DROP
-I PREROUTING 1 -j ringfence-pre
-A ringfence-out -m set --match-set ringfence{0} dst -j DROP
-I OUTPUT 1 -j ringfence-out
COMMIT
"""


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.long)])
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[IpsetBackend]:
    """Yield the backend with each flavour of iptables, opened."""
    made = IpsetBackend(find_tools=finder(request.param))
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize(("mode", "through"), [(LimitMode.ENFORCE, 40), (LimitMode.OBSERVE, 200)])
def test_a_full_limiter_drops_strangers_in_mode_enforce_only(
    backend: IpsetBackend, far: str, monkeypatch: pytest.MonkeyPatch, mode: LimitMode, through: int
) -> None:
    """Packets of sources without room are counted; in mode enforce they are dropped, in observe they pass."""
    monkeypatch.setattr(matches, "BUCKETS", 4)
    monkeypatch.setattr(matches, "MOST_LIMITED", 4)
    plan(backend, FirewallPlan(added=(Limit(mode),)))
    cable = CABLES["IPv4"]
    arrived = 0
    many = [f"198.18.7.{last}" for last in range(20)]
    run("ip", "-n", far, "-batch", "-", text="".join(f"address add {one}/15 dev far0\n" for one in many))
    for there in many:
        with ends(cable, far, SIP, there=there) as (here, remote):
            arrived += flood(here, remote, 10)[0]

    counters = backend.counters()
    assert arrived == through
    assert counters.of("limiter_drops") == 0
    assert counters.of("limiter_full") >= 160
    assert backend.remembered(FLOODS) == []


def test_dropped_packets_may_be_logged(backend: IpsetBackend, far: str, cable: Cable) -> None:
    """With a log the bans drop as without it, and the log's rules match the dropped packets."""
    plan(backend, FirewallPlan(log=True))
    ban(backend, cable)
    assert datagram(cable, far, SIP) == (False, "EPERM")
    flavour = "legacy" if tools_of("legacy", 4) == backend._rules[4].tools else "nft"
    version = 4 if cable.family == socket.AF_INET else 6
    saved = iptables.save(tools_of(flavour, version), table="raw", counters=True)
    [logged] = [line for line in saved.splitlines() if '--log-prefix "ringfence: "' in line]
    assert iptables.parse_counters(logged)[0] == 2


def test_the_previous_release_is_taken_over_under_traffic(
    backend: IpsetBackend, far: str, cable: Cable
) -> None:
    """Rules and bans of the previous release are adopted and replaced, and no packet passes meanwhile."""
    backend.flush()
    version, family = (4, "inet") if cable.family == socket.AF_INET else (6, "inet6")
    tools = backend._find_tools(version)
    run("ipset", "create", f"ringfence{version}", "hash:net", "family", family, "timeout", "0", "counters")
    run("ipset", "add", f"ringfence{version}", cable.network, "timeout", "60")
    run(tools.restore, "--noflush", text=PREVIOUS.format(version))
    with ends(cable, far, SIP) as (here, there):
        assert changing(backend, CHANGES[:1], here, there) > 0
        assert drained_after(here) == 0
    assert [element.network for element in backend.list()] == [ip_network(cable.network)]
