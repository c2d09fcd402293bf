"""A keeper with the memory firewall, as the daemon has one, but without a daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from tests.support.world import START, Faulty

from ringfence.clock import Clock
from ringfence.config.converters import BackendName
from ringfence.config.schema import AllowSettings, DenySettings, FirewallSettings, LimitSettings, Settings
from ringfence.daemon.keeper import Keeper
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.store.best_effort import Records
from ringfence.store.database import Store

if TYPE_CHECKING:
    from ringfence.firewall.contract import Flooder


def settings(*allowed: str, denied: tuple[str, ...] = (), limit: LimitSettings | None = None) -> Settings:
    """Return a configuration with these lists."""
    return Settings(
        firewall=FirewallSettings(
            backend=BackendName("memory"), limit=limit if limit is not None else LimitSettings()
        ),
        allow=AllowSettings(networks=tuple(ip_network(text) for text in allowed)),
        deny=DenySettings(networks=tuple(ip_network(text) for text in denied)),
    )


class Kept:
    """A keeper and the time; ``flooded`` are the addresses that exceeded the limit."""

    def __init__(self, store: Store, wanted: Settings) -> None:
        self.now = START
        self.clock = Clock(wall=lambda: self.now, mono=lambda: self.now - START)
        self.detector = Detector(RULES)
        self.flooded: list[Flooder] = []
        self.store = store
        records = Records(store)
        self.keeper = Keeper(wanted, records, self.detector, self.clock, flooded=self.flooded.extend)
        self.backend = Faulty(lambda: self.now)
        self.backend.plan = self.keeper.enforcer.backend.plan
        self.enforcer = self.keeper.enforcer
        self.enforcer.backend = self.backend

    def banned(self) -> set[str]:
        """Return the addresses and networks in the firewall."""
        return {str(element.network) for element in self.backend.list()}


@contextmanager
def kept(folder: Path, wanted: Settings | None = None, own: str = "198.18.0.1") -> Iterator[Kept]:
    """Yield a keeper that has not set up the firewall yet, on a host with one address."""
    with (
        pytest.MonkeyPatch.context() as patch,
        capture_logs(),
        Store.open(folder / "ringfence.db", owner=True) as store,
    ):
        # The machine's real addresses could be among those that a test bans.
        patch.setattr("ringfence.daemon.keeper.read_addresses", lambda: frozenset({ip_network(own)}))
        patch.setattr("ringfence.daemon.keeper.read_protected", lambda _: {})
        yield Kept(store, wanted if wanted is not None else settings())
