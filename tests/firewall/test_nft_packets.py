"""What only the nftables backend does to packets: its full limiter lets strangers pass; its log."""

from collections.abc import Iterator

import pytest
from tests.support.cable import CABLES, Cable
from tests.support.netns import run
from tests.support.packets import SIP, ban, datagram, ends, flood, met_far_end, plan

from ringfence.firewall import nft_rules
from ringfence.firewall.contract import Limit, LimitMode, Plan
from ringfence.firewall.nftables import NftablesBackend

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """The backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


@pytest.fixture
def far(backend: NftablesBackend) -> Iterator[str]:
    """The namespace at the other end of the cable."""
    with met_far_end() as name:
        yield name


@pytest.fixture(params=["IPv4", "IPv6"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """The cable of each IP version."""
    return CABLES[request.param]


def test_a_full_limiter_lets_strangers_pass_and_says_so(
    backend: NftablesBackend, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table has no room for a source its packets pass, and are counted as such."""
    monkeypatch.setattr(nft_rules, "RATE_SIZE", 4)
    plan(backend, Plan(limit=Limit(LimitMode.ENFORCE, rate=1, burst=5)))
    cable = CABLES["IPv4"]
    arrived = 0
    for last in range(20):
        there = f"198.18.7.{last}"
        run("ip", "-n", far, "address", "add", f"{there}/15", "dev", "far0")
        with ends(cable, far, SIP, there=there) as (here, remote):
            arrived += flood(here, remote, 10)[0]

    usage = backend.usage()
    assert arrived == 4 * 5 + 16 * 10
    assert (usage.limiter_drops, usage.limiter_full) == (4 * 5, 16 * 10)
    assert [flooder.packets for flooder in backend.flooding()] == [5] * 4


def test_what_is_dropped_may_be_logged(backend: NftablesBackend, far: str, cable: Cable) -> None:
    """With a log asked for the bans drop as without it; the log's rule stands before each drop."""
    plan(backend, Plan(log=True))
    ban(backend, cable)
    assert datagram(cable, far, SIP) == (False, "EPERM")
    met = {use.name: use.packets for use in backend.usage().rules}
    assert (met["from banned addresses"], met["to banned addresses"]) == (1, 1)
    for chain in ("from_banned", "to_banned"):
        rules = run("nft", "list", "chain", "inet", "ringfence", chain).splitlines()
        place = next(number for number, rule in enumerate(rules) if 'log prefix "ringfence: "' in rule)
        assert rules[place + 1].strip() == "drop"
