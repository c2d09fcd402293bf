"""Fixtures that the tests of the nftables backend share."""

from collections.abc import Iterator

import pytest

from ringfence.firewall.nftables.backend import NftablesBackend


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """Yield the backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()
