"""The rules of the limiter, which follow from the settings and wait for the friends."""

from pathlib import Path

from tests.support.kept import ENFORCED, kept, settings, waits

from ringfence.features.limiter.settings import LimitSettings
from ringfence.firewall.limits import LimitMode
from ringfence.friends.startup import SourceReadiness


def test_the_limiter_drops_nothing_before_friends_are_known(tmp_path: Path) -> None:
    """The limiter observes and reports a wait until every Asterisk sent its roster; off stays off."""
    with kept(tmp_path, ENFORCED) as made:
        made.side.start()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        startup = made.side.exempt.friends.startup
        startup.update([SourceReadiness(since=0.0, roster_ready=False)], 0.0)
        made.side.kernel.rules.update()
        assert waits(made) == (LimitMode.OBSERVE, True, True)
        startup.update([SourceReadiness(since=0.0, roster_ready=True)], 0.0)
        made.side.kernel.rules.update()

        assert waits(made) == (LimitMode.ENFORCE, False, False)
        made.side.configure(settings(limit=LimitSettings(mode=LimitMode.OFF)))
        assert waits(made) == (LimitMode.OFF, False, False)
