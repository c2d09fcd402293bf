"""The systemd unit of the fetcher: valid, closed, and with the paths of the commands."""

from pathlib import Path

from tests.contrib import unit

from ringfence.config.schema import ControlSettings, StoreSettings
from ringfence.features.feeds.https import SECONDS
from ringfence.features.feeds.settings import FETCHED

FILE = unit.FILE.with_name("ringfence-feeds.service")
MOST_EXPOSED = 2.5


@unit.needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """systemd-analyze accepts every directive, and rates the unit as closed."""
    assert unit.faults(tmp_path, FILE) == []
    assert unit.exposure(FILE) <= MOST_EXPOSED


def test_the_unit_has_no_rights() -> None:
    """It has no capability, its own user, and is not in the group that may use the control socket."""
    directives = unit.read(FILE)
    sysusers = FILE.with_name("ringfence-feeds.sysusers").read_text("utf-8").splitlines()
    kind, name, *_ = sysusers[-1].split()

    assert directives["CapabilityBoundingSet"] == directives["AmbientCapabilities"] == [""]
    assert (kind, [name], [name]) == ("u", directives["User"], directives["Group"])
    assert "SupplementaryGroups" not in directives


def test_what_it_must_not_see_is_hidden() -> None:
    """The control socket, the secret and the database are out of its sight."""
    [hidden] = unit.read(FILE)["InaccessiblePaths"]
    paths = [Path(path.removeprefix("-")) for path in hidden.split()]

    for needed in (ControlSettings().socket, StoreSettings().path, Path("/etc/ringfence/asterisk.secret")):
        assert any(needed.is_relative_to(path) for path in paths), needed


def test_the_paths_are_those_of_the_commands() -> None:
    """The lists are in the state folder, where the daemon looks for them; the plan is closed to others."""
    directives = unit.read(FILE)

    assert Path("/var/lib", directives["StateDirectory"][0]) == FETCHED
    assert (directives["StateDirectoryMode"], directives["UMask"]) == (["0755"], ["0022"])
    assert directives["RuntimeDirectoryMode"] == ["0700"]
    [before], [start] = directives["ExecStartPre"], directives["ExecStart"]
    assert before.split()[-1] == start.split()[-1]


def test_a_stop_waits_for_a_request() -> None:
    """A request ends before systemd kills the fetcher."""
    [limit] = unit.read(FILE)["TimeoutStopSec"]

    assert int(limit.removesuffix("s")) > SECONDS
