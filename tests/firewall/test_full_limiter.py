"""A limiter that has no room for the source of a packet."""

from functools import partial

import pytest
from tests.support.cable import CABLES
from tests.support.netns import run
from tests.support.packets import SIP, ends, flood, plan

from ringfence.features.limiter import stage
from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.ipset import matches
from ringfence.firewall.limits import LimitMode, Table

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


def arrived(far: str) -> int:
    """Send ten packets from each of twenty addresses; return how many arrive."""
    many = [f"198.18.7.{last}" for last in range(20)]
    run("ip", "-n", far, "-batch", "-", text="".join(f"address add {one}/15 dev far0\n" for one in many))
    total = 0
    for there in many:
        with ends(CABLES["IPv4"], far, SIP, there=there) as (here, remote):
            total += flood(here, remote, 10)[0]
    return total


@pytest.mark.parametrize("backend", ["nftables"], indirect=True)
def test_strangers_pass_a_full_limiter_of_nftables(
    backend: Backend, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packets of a source without room pass, and are counted as such."""
    monkeypatch.setattr(stage, "Table", partial(Table, room=4))
    plan(backend, FirewallPlan(added=(Limit(LimitMode.ENFORCE, rate=1, burst=5),)))

    assert arrived(far) == 4 * 5 + 16 * 10
    counters = backend.counters()
    assert (counters.of("limiter_drops"), counters.of("limiter_full")) == (4 * 5, 16 * 10)
    assert [flooder.packets for flooder in backend.remembered(FLOODS)] == [5] * 4


@pytest.mark.parametrize("backend", ["nft", pytest.param("legacy", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize(("mode", "through"), [(LimitMode.ENFORCE, 40), (LimitMode.OBSERVE, 200)])
def test_a_full_limiter_of_iptables_drops_strangers_in_mode_enforce_only(
    backend: Backend, far: str, monkeypatch: pytest.MonkeyPatch, mode: LimitMode, through: int
) -> None:
    """Packets of sources without room are counted; in mode enforce they are dropped, in observe they pass."""
    monkeypatch.setattr(matches, "BUCKETS", 4)
    monkeypatch.setattr(matches, "MOST_LIMITED", 4)
    plan(backend, FirewallPlan(added=(Limit(mode),)))

    assert arrived(far) == through
    counters = backend.counters()
    assert counters.of("limiter_drops") == 0
    assert counters.of("limiter_full") >= 160
    assert backend.remembered(FLOODS) == []
