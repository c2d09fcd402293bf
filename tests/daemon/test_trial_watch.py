"""The trial of a running daemon: its end, and an end that fails."""

from tests.support.kept import OTHER, Kept

from ringfence.clock import Clock
from ringfence.daemon import trial
from ringfence.errors import FirewallError


def test_a_trial_ends_in_time_unless_it_is_confirmed(kept: Kept) -> None:
    """When its time is over everything is removed; a confirmed trial does not end."""
    kept.side.start()
    kept.ban(OTHER)
    trial.begin(kept.store.state, kept.now + 10.0)
    kept.side.kernel.trial.check()
    [alarm] = kept.side.kernel.trial.running
    assert alarm.code == "trial.running"
    assert alarm.text.startswith("everything is removed at 2023-")
    assert kept.banned() == {f"{OTHER}/32"}

    kept.now += 10.0
    kept.side.kernel.trial.check()
    assert (kept.banned(), kept.side.kernel.trial.until) == (set(), None)

    kept.side.kernel.manager.switch_on()
    trial.begin(kept.store.state, kept.now + 10.0)
    assert trial.confirm(kept.store.state)
    kept.now += 10.0
    kept.side.kernel.trial.check()
    kept.side.kernel.trial.end()
    assert kept.banned() == {f"{OTHER}/32"}


def test_a_set_clock_makes_a_trial_no_longer(kept: Kept) -> None:
    """A wall clock that is set back during the trial does not delay its end."""
    kept.side.start()
    watch, mono = kept.side.kernel.trial, kept.clock.mono
    trial.begin(kept.store.state, kept.now + 10.0)
    watch.check()
    watch._clock = Clock(wall=lambda: kept.now - 3_600, mono=mono)
    kept.now += 9.0
    watch.check()
    assert watch.until is not None
    kept.now += 1.0
    watch.check()
    assert watch.until is None


def test_an_end_that_fails_is_an_alarm(kept: Kept) -> None:
    """If not everything can be removed, an alarm names the fix."""

    def fail() -> None:
        raise FirewallError("no answer")

    kept.side.start()
    kept.backend.flush = fail  # type: ignore[method-assign]
    trial.begin(kept.store.state, kept.now)
    kept.side.kernel.trial.check()

    [alarm] = kept.alarms.active
    assert alarm.code == "trial.not_ended"
    assert alarm.text.endswith("no answer; fix: ringfence off")
