"""Suspects: which addresses the kernel observes, how often they are requested, and how many."""

from ipaddress import ip_address

import pytest

from ringfence.bans.suspects import MOST_A_SECOND, Suspects
from ringfence.clock import Clock
from ringfence.firewall.contract import OBSERVE_MOST, OBSERVE_SECONDS
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Address  # noqa: TC001 - of no matter here


class Asked(MemoryBackend):
    """A firewall that records each address that it is asked to observe."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Address] = []

    def observe(self, addresses: object) -> None:
        """Record the addresses."""
        assert isinstance(addresses, list)
        self.asked += addresses


@pytest.fixture
def backend() -> Asked:
    """Return a firewall that observes no address yet."""
    return Asked()


def test_an_address_is_asked_for_again_before_the_kernel_forgets_it(backend: Asked) -> None:
    """An address is requested again before the kernel forgets it, and not for each attempt."""
    times = iter((0.0, 1.0, OBSERVE_SECONDS / 2 - 0.1, OBSERVE_SECONDS / 2, OBSERVE_SECONDS - 0.1))
    suspects = Suspects(backend, Clock(mono=lambda: next(times)))
    for _ in range(5):
        suspects.observe([ip_address("192.0.2.1")])

    assert len(backend.asked) == 2


def test_so_many_a_second(backend: Asked) -> None:
    """The number of requests in a second is limited, because forged senders are many."""
    times = iter((10.0, 11.0))
    suspects = Suspects(backend, Clock(mono=lambda: next(times)))
    suspects.observe(map(ip_address, range(1_000)))
    assert len(backend.asked) == MOST_A_SECOND
    suspects.observe([ip_address("192.0.2.1")])
    assert len(backend.asked) == MOST_A_SECOND + 1


def test_what_is_remembered_is_bounded(backend: Asked) -> None:
    """The suspects remember as many addresses as the kernel holds."""
    times = iter(range(10, 70))
    suspects = Suspects(backend, Clock(mono=lambda: float(next(times))))
    for second in range(60):
        suspects.observe(ip_address(second * MOST_A_SECOND + n) for n in range(MOST_A_SECOND))
    assert len(suspects) == OBSERVE_MOST
