"""What only the memory backend has: a clock of its own and a size in memory. The rest is test_contract.py."""

from ipaddress import ip_network

from ringfence.firewall.contract import Add, Element, Limit, LimitMode, Opened, Plan, Pulse, Roll, Usage
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Scope


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


def test_a_limiter_is_told_to_be_pretence() -> None:
    """Where a limiter is asked for it says that there is none; nobody floods, and bans are counted."""
    backend = MemoryBackend(Plan(limit=Limit(LimitMode.ENFORCE)))
    assert backend.open() == Opened({4: None, 6: None}, limiter="a dry run puts no rule into the kernel")
    backend.apply([Add(ip_network("192.0.2.1"), 60.0), Add(ip_network("192.0.2.1"), 60.0, Scope.SIP_UDP)])

    assert backend.usage() == Usage(sets={"bans": 2})
    assert backend.pulse() == Pulse(elements=2)
    assert list(backend.flooding()) == []


def test_rolls_are_remembered_until_they_are_flushed() -> None:
    """What a roll was given last is on it, each for itself, and nothing after a flush."""
    backend = MemoryBackend()
    first, second = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
    backend.fill(Roll.ALLOW, [first, second])
    backend.fill(Roll.ALLOW, [second, second])
    backend.fill(Roll.DENY, [first])

    assert backend.rolls == {Roll.ALLOW: {second}, Roll.DENY: {first}, Roll.FRIENDS: frozenset()}
    backend.flush()
    assert backend.rolls == dict.fromkeys(Roll, frozenset())
