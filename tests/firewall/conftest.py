"""The cable that the tests of packets share. Each of these modules has a fixture ``backend`` of its own."""

from collections.abc import Iterator

import pytest
from tests.support.cable import CABLES, Cable
from tests.support.packets import met_far_end

from ringfence.firewall.contract import Backend


@pytest.fixture
def far(backend: Backend) -> Iterator[str]:
    """The namespace at the other end of the cable."""
    with met_far_end() as name:
        yield name


@pytest.fixture(params=["IPv4", "IPv6"])
def cable(request: pytest.FixtureRequest) -> Cable:
    """The cable of each IP version."""
    return CABLES[request.param]
