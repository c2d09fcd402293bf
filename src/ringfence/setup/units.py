"""Enables and starts ringfence's systemd units with ``systemctl``, and restores their state before setup."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ringfence.errors import SetupError
from ringfence.model import printable
from ringfence.setup.journal import Unit

EARLY, SERVICE = "ringfence-early.service", "ringfence.service"
NAMES = (EARLY, SERVICE)
START = "systemctl enable --now ringfence-early ringfence"
_SECONDS = 60
_LINES = 5
"""The number of lines of the service's log in an error message."""


class Systemd:
    """systemd on this host. The folder ``marker`` exists if systemd manages the host (see sd_booted(3))."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    @property
    def runs(self) -> bool:
        """Whether systemd manages this host."""
        return self._marker.is_dir()

    def states(self) -> tuple[Unit, ...]:
        """Return the present state of each unit; none without systemd."""
        return tuple(self._state(name) for name in NAMES) if self.runs else ()

    def start(self, *, restart: bool) -> None:
        """Enable both units and start them. Return when the daemon has reported that it is ready.

        With ``restart``, a daemon that runs already is restarted. If the daemon does not start, raise
        SetupError with the last lines of its log.
        """
        active = restart and self._state(SERVICE).active
        problem = self._run("enable", "--now", *NAMES)
        if active and not problem:
            problem = self._run("restart", SERVICE)
        if problem:
            log = _lines(
                "journalctl", "--unit", SERVICE, "--lines", str(_LINES), "--output", "cat", "--no-pager"
            )
            why = "; ".join([problem, *log])
            raise SetupError(f"the service does not start: {why}; see: journalctl -u ringfence")

    def restore(self, units: Sequence[Unit]) -> None:
        """Restore the states of units.

        Stop each unit that was not active before setup, and disable each one that was not enabled.
        """
        if not self.runs:
            return
        for unit in reversed(units):
            if not unit.active:
                self._run("stop", unit.name)
            if not unit.enabled:
                self._run("disable", unit.name)
            self._run("reset-failed", unit.name)

    def restart(self) -> None:
        """Restart the daemon, so that it reads a restored configuration."""
        if self.runs:
            self._run("restart", SERVICE)

    def _state(self, name: str) -> Unit:
        return Unit(name, not self._run("is-enabled", name), not self._run("is-active", name))

    def _run(self, verb: str, *names: str) -> str:
        """Run systemctl; return "" if it succeeded, else the reason."""
        try:
            done = subprocess.run(  # noqa: S603 - names of our own units
                ["systemctl", "--quiet", verb, *names],  # noqa: S607 - as found in root's own PATH
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"systemctl {verb}: {error}"
        if not done.returncode:
            return ""
        return printable(done.stderr.decode("utf-8", "replace").strip()) or f"systemctl {verb} failed"


def _lines(*command: str) -> list[str]:
    try:
        done = subprocess.run(  # noqa: S603 - a command of our own
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [printable(line) for line in done.stdout.decode("utf-8", "replace").split("\n") if line]
