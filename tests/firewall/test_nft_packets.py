"""Effects on packets that only the nftables backend has: its full limiter."""

from collections.abc import Iterator
from functools import partial

import pytest
from tests.support.cable import CABLES
from tests.support.netns import run
from tests.support.packets import SIP, ends, flood, plan

from ringfence.features.limiter import stage
from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import FirewallPlan
from ringfence.firewall.limits import LimitMode, Table
from ringfence.firewall.nftables.backend import NftablesBackend

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """Yield the backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


def test_strangers_pass_a_full_limiter_and_are_counted(
    backend: NftablesBackend, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the limiter has no room for a source, its packets pass, and are counted as such."""
    monkeypatch.setattr(stage, "Table", partial(Table, room=4))
    plan(backend, FirewallPlan(added=(Limit(LimitMode.ENFORCE, rate=1, burst=5),)))
    cable = CABLES["IPv4"]
    arrived = 0
    many = [f"198.18.7.{last}" for last in range(20)]
    run("ip", "-n", far, "-batch", "-", text="".join(f"address add {one}/15 dev far0\n" for one in many))
    for there in many:
        with ends(cable, far, SIP, there=there) as (here, remote):
            arrived += flood(here, remote, 10)[0]

    counters = backend.counters()
    assert arrived == 4 * 5 + 16 * 10
    assert (counters.of("limiter_drops"), counters.of("limiter_full")) == (4 * 5, 16 * 10)
    assert [flooder.packets for flooder in backend.remembered(FLOODS)] == [5] * 4
