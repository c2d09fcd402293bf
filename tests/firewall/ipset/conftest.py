"""Fixtures that the tests of the ipset backend share."""

from collections.abc import Iterator

import pytest

from ringfence.firewall.ipset.backend import IpsetBackend


@pytest.fixture
def backend(netns: None) -> Iterator[IpsetBackend]:
    """Yield the backend, opened."""
    made = IpsetBackend()
    made.open()
    yield made
    made.close()
