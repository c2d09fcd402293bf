"""The backends and the cable that the tests of packets share."""

from collections.abc import Iterator

import pytest
from tests.support.cable import CABLES, Cable, lay_cable, remove_cable
from tests.support.netns import neighbour
from tests.support.packets import opened

from ringfence.firewall.contract import Backend


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.long), "nftables"])
def backend(request: pytest.FixtureRequest, netns: None) -> Iterator[Backend]:
    """Yield each backend, opened; ipset with each flavour of iptables."""
    with opened(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def opposite() -> Iterator[str]:
    """The namespace at the other end of each cable of a module."""
    with neighbour() as name:
        yield name


@pytest.fixture
def far(backend: Backend, opposite: str) -> Iterator[str]:
    """The namespace at the other end of the cable."""
    lay_cable(opposite)
    yield opposite
    remove_cable()


@pytest.fixture(params=["IPv4", "IPv6"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """The cable of each IP version."""
    return CABLES[request.param]
