"""Suspects: which addresses the kernel observes, how often they are requested, and how many."""

from ipaddress import ip_address, ip_network

import pytest

from ringfence.clock import Clock
from ringfence.daemon.pipeline import MOST_A_SECOND, MOST_NETWORKS, Suspects
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
    suspects.observe(ip_address(n << 8) for n in range(1_000))
    assert len(backend.asked) == MOST_A_SECOND
    suspects.observe([ip_address("192.0.2.1")])
    assert len(backend.asked) == MOST_A_SECOND + 1


def test_what_is_remembered_is_bounded(backend: Asked) -> None:
    """The suspects remember as many addresses as the kernel holds."""
    times = iter(range(10, 70))
    suspects = Suspects(backend, Clock(mono=lambda: float(next(times))))
    for second in range(60):
        suspects.observe(ip_address(second * MOST_A_SECOND + n << 8) for n in range(MOST_A_SECOND))
    assert len(suspects) == OBSERVE_MOST


def test_two_suspects_of_a_network_make_all_its_addresses_suspects(backend: Asked) -> None:
    """The second suspect of a /24 makes the kernel observe all its addresses, again after half a minute."""
    times = iter((0.0, 1.0, 2.0, OBSERVE_SECONDS / 2 + 1.0))
    suspects = Suspects(backend, Clock(mono=lambda: next(times)))
    suspects.observe([ip_address("192.0.2.1"), ip_address("198.51.100.1"), ip_address("2001:db8::1")])
    assert len(backend.asked) == 3

    suspects.observe([ip_address("192.0.2.7"), ip_address("2001:db8::2")])
    assert set(ip_network("192.0.2.0/24")) < set(backend.asked)
    assert not set(ip_network("198.51.100.0/24")) < set(backend.asked)

    backend.asked.clear()
    suspects.observe([ip_address("192.0.2.9")])
    assert backend.asked == [ip_address("192.0.2.9")]
    suspects.observe([ip_address("192.0.2.10")])
    assert set(ip_network("192.0.2.0/24")) <= set(backend.asked)


def test_one_address_alone_makes_no_neighbour_a_suspect(backend: Asked) -> None:
    """An address that is requested again, or long after its neighbour, makes no neighbour a suspect."""
    times = iter((0.0, OBSERVE_SECONDS / 2, 2.0 * OBSERVE_SECONDS))
    suspects = Suspects(backend, Clock(mono=lambda: next(times)))
    suspects.observe([ip_address("192.0.2.1")])
    suspects.observe([ip_address("192.0.2.1")])
    suspects.observe([ip_address("192.0.2.2")])
    assert len(backend.asked) == 3


def test_few_networks_are_observed_as_a_whole(backend: Asked) -> None:
    """At most so many networks are observed as a whole, because forged senders could name pairs of many."""
    suspects = Suspects(backend, Clock(mono=lambda: 0.0))
    for third in range(MOST_NETWORKS + 1):
        suspects.observe([ip_address(f"10.0.{third}.1"), ip_address(f"10.0.{third}.2")])
    assert len(set(backend.asked)) == 256 * MOST_NETWORKS + 2
