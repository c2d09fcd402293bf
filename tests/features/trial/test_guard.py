"""The trial of a running daemon: its end, and an end that fails."""

from pathlib import Path

import pytest
from tests.support.clock import SetClock
from tests.support.full_disk import FullDisk
from tests.support.kept import OTHER, Kept

from ringfence.errors import FirewallError, StoreError
from ringfence.features.trial import guard as trial
from ringfence.features.trial.guard import TrialWatch


@pytest.fixture(name="watch")
def _watch(kept: Kept) -> TrialWatch:
    """Return the watch over the trial of a started firewall."""
    kept.side.start()
    return TrialWatch(kept.side, Path("ringfence.toml"))


def test_a_trial_ends_in_time_unless_it_is_confirmed(kept: Kept, watch: TrialWatch) -> None:
    """When its time is over everything is removed; a confirmed trial does not end."""
    kept.ban(OTHER)
    trial.begin(kept.store.state, kept.now + 10.0)
    watch.check()
    [alarm] = watch.alarms()
    assert alarm.code == "trial.running"
    assert alarm.text.startswith("everything is removed at 2023-")
    assert kept.banned() == {f"{OTHER}/32"}

    kept.now += 10.0
    watch.check()
    assert (kept.banned(), watch.until) == (set(), None)

    kept.side.kernel.manager.switch_on()
    trial.begin(kept.store.state, kept.now + 10.0)
    assert trial.confirm(kept.store.state)
    kept.now += 10.0
    watch.check()
    watch.end()
    assert kept.banned() == {f"{OTHER}/32"}


def test_a_set_clock_makes_a_trial_no_longer(kept: Kept, watch: TrialWatch) -> None:
    """A wall clock that is set back during the trial does not delay its end."""
    mono = kept.clock.mono
    trial.begin(kept.store.state, kept.now + 10.0)
    watch.check()
    watch._clock = SetClock(wall=lambda: kept.now - 3_600, mono=mono)
    kept.now += 9.0
    watch.check()
    assert watch.until is not None
    kept.now += 1.0
    watch.check()
    assert watch.until is None


def test_an_end_that_fails_is_an_alarm(kept: Kept, watch: TrialWatch) -> None:
    """If not everything can be removed, an alarm names the fix."""

    def fail() -> None:
        raise FirewallError("no answer")

    kept.backend.flush = fail  # type: ignore[method-assign]
    trial.begin(kept.store.state, kept.now)
    watch.check()

    [alarm] = kept.alarms.active
    assert alarm.code == "trial.not_ended"
    assert alarm.text.endswith("no answer; fix: ringfence off")


def test_a_trial_is_confirmed_once(kept: Kept, watch: TrialWatch) -> None:
    """The request `confirm` returns whether a trial was running."""
    confirm = watch.handlers()["confirm"]
    trial.begin(kept.store.state, kept.now + 10.0)
    assert (confirm({}), confirm({})) == (True, False)


def test_a_trial_that_cannot_be_read_is_not_denied(
    kept: Kept, watch: TrialWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the database cannot be read, `confirm` is an error, and does not answer that no trial is running."""
    trial.begin(kept.store.state, kept.now + 10.0)
    FullDisk(monkeypatch, kept.store.state, "fact")
    with pytest.raises(StoreError, match="disk full"):
        watch.handlers()["confirm"]({})


def test_a_trial_ends_once_although_the_disk_is_full(
    kept: Kept, watch: TrialWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on` after the end holds while the database still has the trial; the alarm ends with that record."""
    kept.ban(OTHER)
    trial.begin(kept.store.state, kept.now)
    disk = FullDisk(monkeypatch, kept.store.state, "set_fact")
    watch.check()
    assert (kept.banned(), [one.code for one in kept.alarms.active]) == (set(), ["trial.not_ended"])

    kept.side.kernel.manager.switch_on()
    watch.check()
    watch.end()
    assert kept.banned() == {f"{OTHER}/32"}
    disk.is_full = False
    watch.check()
    assert (watch.until, kept.alarms.active) == (None, [])
    assert kept.banned() == {f"{OTHER}/32"}
