"""The parts that guard, with the memory firewall, as the daemon has them, but without a daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.clock import SetClock
from tests.support.firewalls import firewall
from tests.support.world import START, Faulty

from ringfence.ban_facts import News
from ringfence.config.converters import BackendName
from ringfence.config.schema import AllowSettings, DenySettings, Settings
from ringfence.detect.detector import Detector
from ringfence.detect.rules import RULES
from ringfence.features.limiter.settings import LimitSettings
from ringfence.firewall.limits import LimitMode
from ringfence.guard.firewall_side import ChosenBackend, build_firewall_side
from ringfence.store.database import Store
from ringfence.values.ban import Ban
from ringfence.values.friend import Friend, FriendReason

OFFICE, OTHER = "198.51.100.0/24", "192.0.2.1"
PHONE = Friend("pbx", ip_address(OTHER), "alice", FriendReason.AUTHENTICATED, START, START, START + 7_200)


def settings(*allowed: str, denied: tuple[str, ...] = (), limit: LimitSettings | None = None) -> Settings:
    """Return a configuration with these lists."""
    return Settings(
        firewall=firewall(
            backend=BackendName("memory"), limit=limit if limit is not None else LimitSettings()
        ),
        allow=AllowSettings(networks=tuple(ip_network(text) for text in allowed)),
        deny=DenySettings(networks=tuple(ip_network(text) for text in denied)),
    )


ENFORCED = settings(limit=LimitSettings(mode=LimitMode.ENFORCE))


class Kept:
    """The parts, and the time that a test sets."""

    def __init__(self, store: Store, wanted: Settings) -> None:
        self.now = START
        self.ahead = 0.0
        """Seconds by which the wall clock has been set ahead."""
        self.clock = SetClock(wall=lambda: self.now + self.ahead, mono=lambda: self.now - START)
        self.detector = Detector(RULES)
        self.store = store
        self.backend = Faulty(SetClock(mono=lambda: self.now))
        chosen = ChosenBackend(self.backend, "")
        # The memory firewall copies no packets, so with a wire it would report that the wire sees nothing.
        self.side = build_firewall_side(wanted.without_wire(), store, self.detector, chosen, self.clock)
        self.enforcer = self.side.kernel.enforcer
        self.alarms = self.side.common.alarms

    def own_addresses_are(self, *texts: str) -> None:
        """Change this host's addresses, as the kernel reports a change."""
        self.side.exempt.protected.set_own(frozenset(map(ip_network, texts)))
        self.side.exempt.networks.on_protected()

    def ban(self, *texts: str, force: bool = False) -> list[str]:
        """Place a ban by hand for an hour; return the problems."""
        return self.enforcer.ban([ip_network(text) for text in texts], 3_600.0, "", force=force)

    def add(self, ban: Ban) -> None:
        """Place a ban, which the firewall accepts."""
        [outcome] = self.enforcer.apply(self.enforcer.book.add([ban], News.NEW, self.now))
        assert outcome.error is None

    def banned(self) -> set[str]:
        """Return the addresses and networks in the firewall."""
        return {str(element.network) for element in self.backend.list()}


@contextmanager
def kept(folder: Path, wanted: Settings | None = None, own: str = "198.18.0.1") -> Iterator[Kept]:
    """Yield the parts before the firewall is set up, on a host with one address."""
    with (
        pytest.MonkeyPatch.context() as patch,
        capture_logs(),
        Store.open(folder / "ringfence.db", owner=True) as store,
    ):
        # The machine's real addresses could be among those that a test bans.
        patch.setattr("ringfence.host.protected.read_addresses", lambda: frozenset({ip_network(own)}))
        patch.setattr("ringfence.host.protected.read_protected", dict)
        yield Kept(store, wanted if wanted is not None else settings())


def waits(made: Kept) -> tuple[LimitMode, bool, bool]:
    """Return the limiter's mode, whether the limiter waits, and whether the rules wait."""
    known = made.side.exempt.friends.startup.for_bans
    return made.backend.plan.mode("limiter"), "limiter" in made.side.kernel.rules.waiting, not known
