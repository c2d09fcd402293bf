"""A keeper over the memory firewall, as the daemon has one, without a daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from tests.support.world import START, Faulty

from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.keeper import Keeper
from ringfence.settings import AllowSettings, DenySettings, FirewallSettings, LimitSettings, Settings
from ringfence.store import Store
from ringfence.values import BackendName

if TYPE_CHECKING:
    from ringfence.model import Network


def settings(*allowed: str, denied: tuple[str, ...] = (), limit: LimitSettings | None = None) -> Settings:
    """Give a configuration with these lists."""
    return Settings(
        firewall=FirewallSettings(
            backend=BackendName("memory"), limit=limit if limit is not None else LimitSettings()
        ),
        allow=AllowSettings(networks=tuple(ip_network(text) for text in allowed)),
        deny=DenySettings(networks=tuple(ip_network(text) for text in denied)),
    )


class Kept:
    """A keeper and the time; ``flooded`` is who was over the limit."""

    def __init__(self, store: Store, wanted: Settings) -> None:
        self.now = START
        self.clock = Clock(wall=lambda: self.now, mono=lambda: self.now - START)
        self.detector = Detector(RULES)
        self.flooded: list[Network] = []
        self.store = store
        records = Records(store)
        self.keeper = Keeper(wanted, records, self.detector, self.clock, flooded=self.flooded.extend)
        self.backend = Faulty(lambda: self.now)
        self.backend.plan = self.keeper.enforcer.backend.plan
        self.enforcer = self.keeper.enforcer
        self.enforcer.backend = self.backend

    def banned(self) -> set[str]:
        """Give what the firewall has."""
        return {str(element.network) for element in self.backend.list()}


@contextmanager
def kept(folder: Path, wanted: Settings | None = None, own: str = "198.18.0.1") -> Iterator[Kept]:
    """Give a keeper that has not mounted the guard yet, on a host with one address."""
    with (
        pytest.MonkeyPatch.context() as patch,
        capture_logs(),
        Store.open(folder / "ringfence.db", owner=True) as store,
    ):
        # This machine's own may be any of those that tests ban.
        patch.setattr("ringfence.keeper.read_addresses", lambda: frozenset({ip_network(own)}))
        patch.setattr("ringfence.keeper.read_protected", lambda _: {})
        yield Kept(store, wanted if wanted is not None else settings())
