"""The systemd unit of the live page: valid, without capabilities, and with the paths of the commands."""

from pathlib import Path

from tests.contrib import unit

from ringfence.cli.page import DEFAULT_LOGINS
from ringfence.config.schema import ControlSettings
from ringfence.control import ANSWER_TIMEOUT
from ringfence.features.web.command import DEFAULT_CONTROL

FILE = unit.FILE.with_name("ringfence-web.service")
MOST_EXPOSED = 1.7


@unit.needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """systemd-analyze accepts every directive, and rates the unit as closed as that of the daemon."""
    assert unit.faults(tmp_path, FILE) == []
    assert unit.exposure(FILE) <= MOST_EXPOSED


def test_the_unit_has_no_capability() -> None:
    """It has an empty set of capabilities, and can gain none."""
    directives = unit.read(FILE)

    assert directives["CapabilityBoundingSet"] == [""]
    assert directives["AmbientCapabilities"] == [""]
    assert directives["NoNewPrivileges"] == ["yes"]


def test_a_stop_waits_for_a_command() -> None:
    """A command that waits for the daemon ends before systemd kills the page."""
    [limit] = unit.read(FILE)["TimeoutStopSec"]

    assert int(limit.removesuffix("s")) > ANSWER_TIMEOUT + 5


def test_the_unit_names_the_user_that_is_made() -> None:
    """The unit has the user of its sysusers file, and the group that may use the control socket."""
    sysusers = FILE.with_name("ringfence-web.sysusers").read_text("utf-8").splitlines()
    kind, name, *_ = sysusers[-1].split()
    directives = unit.read(FILE)

    assert (kind, [name], [name]) == ("u", directives["User"], directives["Group"])
    assert directives["SupplementaryGroups"] == unit.read()["Group"]


def test_the_paths_are_those_of_the_commands() -> None:
    """The runtime folder of the unit, closed to others, has the socket of the login command."""
    directives = unit.read(FILE)

    assert DEFAULT_LOGINS.parent == Path("/run", directives["RuntimeDirectory"][0])
    assert directives["RuntimeDirectoryMode"] == ["0700"]
    assert ControlSettings().socket == DEFAULT_CONTROL
