"""What only the memory backend has: a clock of its own and a size in memory. The rest is test_contract.py."""

from ipaddress import ip_network

from ringfence.firewall.contract import Add, Element, Opened
from ringfence.firewall.memory import MemoryBackend


def test_bans_end_by_the_clock() -> None:
    """A ban is listed with the time it has left and is gone when that is over."""
    now = 100.0
    backend = MemoryBackend(clock=lambda: now)
    backend.apply([Add(ip_network("192.0.2.1"), 60.0), Add(ip_network("2001:db8::/64"), 10.0)])

    now = 105.0
    assert list(backend.list()) == [
        Element(ip_network("192.0.2.1"), 55.0, 0, 0),
        Element(ip_network("2001:db8::/64"), 5.0, 0, 0),
    ]

    now = 110.0
    assert list(backend.list()) == [Element(ip_network("192.0.2.1"), 50.0, 0, 0)]
    assert backend.open() == Opened(families={4: None, 6: None}, adopted=1)
