"""The units of systemd, with a program ``systemctl`` that records its arguments."""

from pathlib import Path

import pytest

from ringfence.errors import SetupError
from ringfence.features.setup.journal import Unit
from ringfence.features.setup.session import EARLY, SERVICE, Systemd

_PROGRAM = """\
#!/bin/sh
[ "$1" = show ] || shift
echo "$*" >>{folder}/calls
case "$1" in
    is-*) exit {state} ;;
    enable) {enable} ;;
    stop | disable | restart) {change} ;;
    show) [ "$2" = --property=LoadState ] && echo {load} || echo "{environment}" ;;
esac
"""


class Calls:
    """A systemd whose program answers as a test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.marker = folder / "systemd"
        self.marker.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        journal = folder / "journalctl"
        journal.write_text("#!/bin/sh\necho 'asterisk.ami.secret: is missing'\n", "utf-8")
        journal.chmod(0o755)
        self.answer(state=1)

    def answer(
        self,
        *,
        state: int,
        enable: str = "exit 0",
        change: str = "exit 0",
        load: str = "loaded",
        environment: str = "",
    ) -> None:
        """Set the exit code of questions about a unit, its properties, and the scripts of changes."""
        program = self._folder / "systemctl"
        text = _PROGRAM.format(
            folder=self._folder, state=state, enable=enable, change=change, load=load, environment=environment
        )
        program.write_text(text, "utf-8")
        program.chmod(0o755)

    def made(self) -> list[str]:
        """Return the calls since the last time, without questions."""
        file = self._folder / "calls"
        lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("is-")]


@pytest.fixture(name="calls")
def _calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(tmp_path, monkeypatch)


def test_a_stopped_service_is_enabled_and_started(calls: Calls) -> None:
    """Both units are started with one command."""
    systemd = Systemd(calls.marker)
    systemd.start(restart=True)

    assert calls.made() == [f"enable --now {EARLY} {SERVICE}"]
    assert systemd.states() == (Unit(EARLY, False, False), Unit(SERVICE, False, False))  # noqa: FBT003 - in order


def test_a_running_service_is_restarted_only_after_a_change(calls: Calls) -> None:
    """Without a change the daemon goes on."""
    calls.answer(state=0)
    Systemd(calls.marker).start(restart=True)
    assert calls.made() == [f"enable --now {EARLY} {SERVICE}", f"restart {SERVICE}"]

    Systemd(calls.marker).start(restart=False)
    assert calls.made() == [f"enable --now {EARLY} {SERVICE}"]


def test_a_service_that_does_not_start_is_an_error_with_its_reason(calls: Calls) -> None:
    """The message has systemctl's reason and the last lines of the service's log."""
    calls.answer(state=1, enable="echo 'Job failed.' >&2; exit 1")

    with pytest.raises(SetupError, match=r"does not start: Job failed\.; asterisk\.ami\.secret: is missing"):
        Systemd(calls.marker).start(restart=True)


def test_units_become_as_they_were(calls: Calls) -> None:
    """A unit that was enabled or active stays so."""
    before = (Unit(EARLY, enabled=True, active=False), Unit(SERVICE, enabled=False, active=True))
    assert list(Systemd(calls.marker).restore(before)) == []

    assert calls.made() == [
        f"disable {SERVICE}",
        f"reset-failed {SERVICE}",
        f"stop {EARLY}",
        f"reset-failed {EARLY}",
    ]


def test_a_unit_that_systemd_does_not_change_is_named(calls: Calls) -> None:
    """The line has systemctl's reason and the command that is left to do."""
    calls.answer(state=0, change="echo 'Connection timed out' >&2; exit 1")
    systemd = Systemd(calls.marker)

    assert list(systemd.restore([Unit(EARLY, enabled=False, active=False)])) == [
        f"Connection timed out; fix: systemctl stop {EARLY}",
        f"Connection timed out; fix: systemctl disable {EARLY}",
    ]
    assert list(systemd.restart()) == [f"Connection timed out; fix: systemctl restart {SERVICE}"]


def test_a_unit_that_does_not_exist_needs_no_change(calls: Calls) -> None:
    """Somebody has removed the file of the unit, so that it neither runs nor starts at the next boot."""
    calls.answer(state=1, change="echo 'Unit not loaded.' >&2; exit 5", load="not-found")

    assert list(Systemd(calls.marker).restore([Unit(EARLY, enabled=False, active=False)])) == []


@pytest.mark.parametrize(
    ("environment", "read"),
    [
        ("", "/etc/ringfence/ringfence.toml"),
        ("LANG=C RINGFENCE_CONFIG=/etc/ringfence/pbx.toml", "/etc/ringfence/pbx.toml"),
    ],
)
def test_the_units_must_read_the_configuration_of_setup(calls: Calls, environment: str, read: str) -> None:
    """Otherwise the daemon would not have the networks that the administrator has agreed to."""
    calls.answer(state=1, environment=environment)
    systemd = Systemd(calls.marker)
    systemd.require_config(Path(read))

    with pytest.raises(SetupError, match=f"{EARLY} reads {read}, not /srv/pbx.toml; fix: "):
        systemd.require_config(Path("/srv/pbx.toml"))


def test_without_systemd_nothing_is_called(tmp_path: Path, calls: Calls) -> None:
    """Another init system, or a container, has no such program."""
    systemd = Systemd(tmp_path / "gone")
    systemd.require_config(Path("/srv/pbx.toml"))
    assert [*systemd.restore([Unit(SERVICE, enabled=False, active=False)]), *systemd.restart()] == []

    assert (systemd.runs, systemd.states(), calls.made()) == (False, (), [])
