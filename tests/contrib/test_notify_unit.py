"""The units of the service for programs: valid, closed, and only for the daemon's user."""

import shutil
from pathlib import Path

from tests.contrib import unit

from ringfence.config.converters import Text
from ringfence.config.schema import ControlSettings
from ringfence.features.notify.runner import LONGEST
from ringfence.features.notify.settings import HookSettings

SERVICE = unit.FILE.with_name("ringfence-notify@.service")
SOCKET = unit.FILE.with_name("ringfence-notify.socket")
MOST_EXPOSED = 1.7


@unit.needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """systemd-analyze accepts every directive of both units."""
    assert unit.faults(tmp_path, SERVICE, SOCKET) == []


@unit.needs_systemd
def test_the_service_is_as_closed_as_the_daemon(tmp_path: Path) -> None:
    """systemd-analyze rates an instance of the service as closed as the daemon."""
    instance = tmp_path / "ringfence-notify@1.service"
    shutil.copy(SERVICE, instance)

    assert unit.exposure(instance) <= MOST_EXPOSED


def test_the_service_is_in_no_group_and_cannot_see_what_is_ringfences() -> None:
    """Its user is made for one message, and the folders of ringfence and Asterisk are invisible."""
    directives = unit.read(SERVICE)
    hidden = {path.removeprefix("-") for line in directives["InaccessiblePaths"] for path in line.split()}

    assert directives["DynamicUser"] == ["yes"]
    assert "%i" in directives["User"][0]
    assert not directives.keys() & {"Group", "SupplementaryGroups", "StateDirectory"}
    assert str(ControlSettings().socket.parent) in hidden
    assert {"/etc/ringfence", "/var/lib/ringfence", "/etc/asterisk"} < hidden
    assert (directives["KillMode"], directives["KillSignal"]) == (["control-group"], ["SIGKILL"])
    assert int(directives["RuntimeMaxSec"][0].removesuffix("min")) * 60 > LONGEST


def test_the_socket_is_for_the_daemon_only() -> None:
    """The socket is the default of the channels, belongs to the daemon's user, and starts with the daemon."""
    directives, daemon = unit.read(SOCKET), unit.read()

    assert directives["ListenStream"] == [str(HookSettings(command=(Text("/x"),)).socket)]
    assert directives["SocketUser"] == daemon["User"]
    assert (directives["SocketMode"], directives["Accept"]) == (["0600"], ["yes"])
    assert SOCKET.name in daemon["Wants"]
    assert directives["PartOf"] == [unit.FILE.name]
