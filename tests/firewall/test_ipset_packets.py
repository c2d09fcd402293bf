"""Effects on packets that only the ipset backend has: its full limiter."""

from collections.abc import Iterator

import pytest
from tests.support.cable import CABLES
from tests.support.flavours import finder
from tests.support.netns import run
from tests.support.packets import SIP, ends, flood, plan

from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.ipset import matches
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


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
