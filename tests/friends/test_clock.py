"""The wall clock is set while there are friends: none of them becomes a stranger, and none stays for long."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.friends.world import AUTHENTICATED, World, contact, event_of, roster, success
from tests.support.kept import Kept, kept

from ringfence.detect.friends import AUTHENTICATED_FOR
from ringfence.detect.new_friends import GUILTY_FOR, MOST_AN_HOUR
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.values.friend import Friend
from ringfence.values.network import sender_of

HOUR, DAY = 3_600.0, 86_400.0
PHONE, OTHER = "192.0.2.7", "192.0.2.8"


class Guard:
    """The guard's parts, the logins that they get, and the clocks."""

    def __init__(self, parts: Kept) -> None:
        self.parts = parts
        self.registry = parts.side.exempt.friends
        self.friends = self.registry.friends
        effects = EffectHandler(parts.enforcer, parts.alarms, self.registry)
        self._pipeline = Pipeline(parts.detector, effects, parts.clock, "pbx")

    def log_in(self, address: str, account: str = "alice") -> None:
        """Report a login at the present time, as AMI does."""
        event = event_of(address, account, time=self.parts.clock.wall())
        self._pipeline.on_events([event], self.parts.clock.mono())

    def wait(self, seconds: float) -> None:
        """Advance both clocks, and do the periodic work of friends."""
        self.parts.now += seconds
        self.registry.expire()
        self.registry.write()

    def left(self, address: str) -> float | None:
        """Return the seconds for which the address is a friend; None if it is a stranger."""
        reasons = self.friends.reasons(ip_address(address))
        return max((round(one.until - self.parts.clock.wall()) for one in reasons), default=None)

    def stored(self) -> list[Friend]:
        """Return the present friends of the database."""
        return self.parts.store.friends.current(self.parts.clock.wall(), 100)


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> Iterator[Guard]:
    with kept(tmp_path) as parts:
        yield Guard(parts)


@pytest.mark.parametrize("step", [3 * HOUR, 400 * DAY, -400 * DAY])
def test_a_friend_keeps_its_time_when_the_clock_is_set(guard: Guard, step: float) -> None:
    """A present friend stays one for its time, also in the database, and a former one stays known."""
    guard.log_in(OTHER, "bob")
    guard.wait(AUTHENTICATED_FOR)
    guard.log_in(PHONE)
    guard.parts.ahead = step
    guard.wait(60.0)

    assert guard.left(PHONE) == AUTHENTICATED_FOR - 60
    assert [round(one.until - guard.parts.clock.wall()) for one in guard.stored()] == [AUTHENTICATED_FOR - 60]
    assert guard.left(OTHER) is None
    assert guard.friends.worked_at("bob", ip_address(OTHER))
    [former] = guard.parts.store.friends.former(guard.parts.clock.wall(), 100)
    assert guard.parts.clock.wall() - former.until == 60
    guard.wait(AUTHENTICATED_FOR)
    assert guard.left(PHONE) is None


@pytest.mark.parametrize("step", [400 * DAY, -400 * DAY])
def test_a_login_right_after_the_clock_was_set_has_its_length(guard: Guard, step: float) -> None:
    """A login before the next periodic work is by the new clock already, also where limits count it."""
    guard.log_in(PHONE)
    guard.parts.ahead = step
    guard.log_in(OTHER, "bob")
    guard.wait(60.0)

    assert guard.left(OTHER) == guard.left(PHONE) == AUTHENTICATED_FOR - 60
    guard.wait(HOUR)
    for number in range(MOST_AN_HOUR):
        guard.log_in(f"198.51.100.{number}", "bob")
        assert guard.left(f"198.51.100.{number}") == AUTHENTICATED_FOR


@pytest.mark.parametrize("step", [3 * HOUR, -3 * DAY])
def test_a_set_clock_changes_no_limit_of_new_friends(guard: Guard, step: float) -> None:
    """An account has made as many new friends as an hour permits: it makes the next one after that hour."""
    for number in range(MOST_AN_HOUR):
        guard.log_in(f"198.51.100.{number}")
    guard.parts.ahead = step
    guard.wait(60.0)
    guard.log_in("203.0.113.1")
    guard.wait(HOUR)
    guard.log_in("203.0.113.2")

    assert guard.left("203.0.113.1") is None
    assert guard.left("203.0.113.2") == AUTHENTICATED_FOR


def test_a_clock_that_is_set_back_prolongs_no_guilt(guard: Guard) -> None:
    """The account of a guesser makes new friends again after an hour, and its old address is a stranger's."""
    guard.log_in(PHONE)
    [*_] = guard.friends.estrange(("pbx", "alice"), guard.parts.clock.wall())
    guard.parts.ahead = -3 * DAY
    guard.wait(GUILTY_FOR)
    guard.log_in(OTHER)

    assert guard.left(OTHER) == AUTHENTICATED_FOR
    assert not guard.friends.new.is_tainted(sender_of(ip_address(PHONE)), guard.parts.clock.wall())


def test_a_friend_of_the_future_is_restored_for_the_rest_of_its_time(world: World) -> None:
    """The host boots a year behind: friends of the database are friends, but for no year."""
    world.keeping.on_login(success(PHONE))
    world.keeping.on_roster(roster(contact(OTHER, "bob", left=600.0)))
    world.wait(60.0)
    world.now -= 365 * DAY
    after = world.again()

    assert after.ties(PHONE) == {AUTHENTICATED: AUTHENTICATED_FOR}
    assert after.ties(OTHER) == {"registered": 600 + HOUR}
    after.wait(AUTHENTICATED_FOR)
    assert after.ties(PHONE) == after.ties(OTHER) == {}
