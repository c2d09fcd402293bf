"""Enforcement switched off during an attack of days: the daemon's memory does not grow."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import structlog
from tests.detect.events import event
from tests.support.clock import SetClock
from tests.support.listening import connected

from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import _MOST_UNNAMED as MOST_UNNAMED
from ringfence.detect.detector import Detector
from ringfence.detect.history import _MOST_KNOWN as MOST_SUBJECTS
from ringfence.detect.judge import MOST_CLAIMS
from ringfence.detect.rules import RULES
from ringfence.firewall.memory import MemoryBackend
from ringfence.friends.registry import FriendRegistry
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.host.names import Names
from ringfence.store.database import Store
from ringfence.values.event import EventKind, Transport

WALL = 1_800_000_000.0
SENDERS = 20  # new ones each hour
GUESSES = 6
CACHES = {
    "claims._before": MOST_CLAIMS,
    "subjects._known": MOST_SUBJECTS,
    "detector._unnamed": MOST_UNNAMED,
}
"""Tables that fill up to a bound and then drop the oldest entry, whatever its age."""


def tables(found: object, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """Yield every container that can be reached from an object, with its path and its length."""
    seen = set() if seen is None else seen
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, Collection) and not isinstance(found, str | bytes):
        yield path, len(found)
        inner = list(found.values()) if isinstance(found, dict) else list(found)
        for one in inner[:SENDERS]:
            yield from tables(one, f"{path}[]", seen)
    if type(found).__module__.startswith("ringfence"):
        slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*getattr(found, "__dict__", {}), *slots]:
            if not name.startswith("__") and hasattr(found, name):
                yield from tables(getattr(found, name), f"{path}.{name}", seen)


def largest(*parts: object) -> dict[str, int]:
    """Return the largest length of the containers at each path."""
    found: dict[str, int] = {}
    for part in parts:
        for path, length in tables(part, type(part).__name__):
            found[path] = max(length, found.get(path, 0))
    return found


class Off:
    """A guard that is switched off, with a clock that the test sets, and senders that are never blocked."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        clock = SetClock(wall=lambda: WALL + self.now, mono=lambda: self.now)
        store = Store.open(folder / "ringfence.db", owner=True)
        store.state.set_switched_off(True)
        self.detector = Detector(RULES, sources=KnownSources(frozenset({"pbx"})))
        self.enforcer = Enforcer(MemoryBackend(clock=clock), store.records, self.detector, clock)
        self.enforcer.start()
        self.alarms = Alarms(clock)
        friends = FriendRegistry(self.detector.friends, store.friends, store.best_effort, clock.wall, Names())
        effects = EffectHandler(self.enforcer, self.alarms, friends)
        self.evidence = Pipeline(self.detector, effects, clock, "pbx")

    def day(self, number: int) -> None:
        """Make senders guess and ask in turn for a day, by UDP and by TCP, each as long as rules count."""
        for hour in range(24 * number, 24 * number + 24):
            for sender in range(SENDERS):
                for guess in range(GUESSES):
                    self.now = hour * 3_600.0 + sender * 60.0 + guess
                    reported = event(
                        (EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_ACCOUNT_ID)[guess % 2],
                        WALL + self.now,
                        address=f"198.{18 + number % 2}.{hour % 250}.{sender}",
                        transport=(Transport.UDP, Transport.TCP)[sender % 2],
                        session=b"%d-%d-%d" % (hour, sender, guess),
                        account=f"{hour}-{sender}-{guess}",
                    )
                    self.evidence.on_events([reported], self.now)
                    self.evidence.tick(wire=False, listening=connected(0.0))
                    self.enforcer.tick()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Write no log."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def test_nothing_grows_while_it_is_off(tmp_path: Path) -> None:
    """After two days, twice the longest window, every table has its final size."""
    off = Off(tmp_path)
    days = []
    for number in range(4):
        off.day(number)
        days.append(largest(off.evidence, off.enforcer, off.alarms))
    grown = {
        path: (days[1].get(path, 0), length)
        for path, length in days[3].items()
        if length > days[1].get(path, 0) and length > days[2].get(path, 0)
    }

    assert off.detector.counts.attempts == 4 * 24 * SENDERS * GUESSES // 2  # the others are questions
    assert {path for path in grown if not path.endswith(tuple(CACHES))} == set()
    for name, bound in CACHES.items():
        assert all(length <= bound for path, length in days[3].items() if path.endswith(name))
