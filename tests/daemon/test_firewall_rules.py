"""The rules of the firewall: which ones are wanted, and their changes."""

from pathlib import Path

from tests.support.kept import ENFORCED, OFFICE, Kept, kept, settings, waits

from ringfence.config.schema import LimitSettings
from ringfence.errors import FirewallError
from ringfence.firewall.contract import LimitMode
from ringfence.friends.readiness import SourceReadiness


def test_rules_that_cannot_be_put_in_place_are_an_alarm(kept: Kept) -> None:
    """Rules that the firewall refuses are an alarm with the firewall's error, until they are in place."""
    kept.side.start()
    kept.backend.gone = FirewallError("no answer")
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OFF)))
    assert "firewall.not_changed" in {alarm.code for alarm in kept.alarms.active}

    kept.backend.gone = None
    kept.side.configure(settings(OFFICE, limit=LimitSettings(mode=LimitMode.OBSERVE)))
    assert kept.alarms.active == []


def test_the_limiter_drops_nothing_before_friends_are_known(tmp_path: Path) -> None:
    """The limiter observes and reports a wait until every Asterisk sent its roster; off stays off."""
    with kept(tmp_path, ENFORCED) as made:
        made.side.start()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        startup = made.side.friends.startup
        startup.update([SourceReadiness(since=0.0, roster_ready=False)], 0.0)
        made.side.rules.update()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
        made.side.rules.update()

        assert waits(made) == (LimitMode.ENFORCE, False, False)
        made.side.configure(settings(limit=LimitSettings(mode=LimitMode.OFF)))
        assert waits(made) == (LimitMode.OFF, False, False)
