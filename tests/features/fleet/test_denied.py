"""Decisions of other hosts on the lists: which networks are denied, and how that ends."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.lists.world import At, prefixes

from ringfence.config.schema import Settings
from ringfence.features.fleet.decisions import key_of
from ringfence.features.fleet.denied import DecidedNetworks
from ringfence.features.fleet.network_list import LIST
from ringfence.lists.prefixes import Prefixes
from ringfence.values.ban import Scope
from ringfence.values.network import pack


def test_decisions_of_other_hosts_are_denied_below_everything(tmp_path: Path) -> None:
    """They are a list of their own, stay after each composition, and are named as what they are."""
    decided = DecidedNetworks(Settings())
    at = At(tmp_path, others=[decided])
    one, two = pack(ip_network("198.51.100.7")), pack(ip_network("203.0.113.0/24"))
    decisions = (key_of(one, "ringfence/guess"), key_of(one, "other"), key_of(two, "other"))

    async def script() -> None:
        await decided.apply(at.lists, decisions)
        assert at.told[-1].others == {LIST: prefixes("198.51.100.7", "203.0.113.0/24")}
        assert len(at.told[-1].deny) == 0
        await at.lists.refresh()
        assert at.lists.networks == at.told[-1]
        [held] = await at.lists.holding(ip_network("203.0.113.9"))
        assert (held.entry.origin, held.entry.value) == ("decision other", "203.0.113.0/24")
        assert held.drops is Scope.SIP
        await decided.apply(at.lists, ())
        assert at.lists.networks.of(LIST) == Prefixes()

    at.run(script)


@pytest.mark.parametrize(
    ("network", "option"), [("192.0.2.1", "--ip 192.0.2.1"), ("192.0.2.0/24", "--range 192.0.2.0/24")]
)
def test_how_a_decision_of_another_host_ends(network: str, option: str, tmp_path: Path) -> None:
    """The command is one that CrowdSec takes: it has one option for an address and one for a network."""
    decided = DecidedNetworks(Settings())
    at = At(tmp_path, others=[decided])

    async def script() -> None:
        await decided.apply(at.lists, (key_of(pack(ip_network(network)), "x"),))
        [held] = await at.lists.holding(ip_network(network))
        assert held.removal.startswith(f"cscli decisions delete {option}, where")

    at.run(script)
