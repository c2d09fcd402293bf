"""Fixtures that the tests of the nftables backend share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.netlink.connection import NetlinkConnection, NetlinkLostError

Losing = Callable[[], AbstractContextManager[None]]
"""What :func:`losing_answers` returns."""


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """Yield the backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


@pytest.fixture
def losing_answers(monkeypatch: pytest.MonkeyPatch) -> Losing:
    """Return a context in which the kernel carries out each transaction, and its answer is lost."""
    real = NetlinkConnection.transact

    def lose(self: NetlinkConnection, *messages: bytes) -> None:
        real(self, *messages)
        raise NetlinkLostError("the answer was lost")

    @contextmanager
    def losing() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(NetlinkConnection, "transact", lose)
            yield

    return losing
